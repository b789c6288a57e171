"""Predict each text's label with a quick model that never saw it: a linear probe in folds, mixed with nearest neighbours.

The probe is a multinomial logistic regression on two views of a text: TF-IDF of its tokens and token bigrams, and its
standardised embedding (linear probes: Alain and Bengio, arXiv 1610.01644). Token ids serve as words in every language
that the base model can read. The neighbours vote by cosine similarity (k-NN).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from engine.data import logistic_regression
from engine.data.tokens import Tokens

FOLDS = 5
EMBEDDING_SCALE = 0.03  # of standardised coordinates: a text's embedding then weighs about half of its words
MIN_TEXTS = 2  # of a token or bigram
NEIGHBOURS = 30
NEIGHBOUR_SHARE = 0.2  # exponent of the votes in the mixture; the probe has the rest
NEIGHBOUR_SHARPNESS = 10.0  # of the softmax over similarities
NEIGHBOUR_BATCH = 1024  # texts
MAX_REFERENCES = 40_000  # texts that others are compared with; beyond, an even sample
MAX_ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class Features:
    """The two views of texts. words: (texts, terms) sparse; embeddings: (texts, width); both float32."""

    words: sparse.csr_matrix
    embeddings: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Features:
        return Features(self.words[rows], self.embeddings[rows])


def held_out_probabilities(
    tokens: Tokens,
    vectors: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    on_done: Callable[[int], None] = lambda folds: None,
) -> np.ndarray:
    """Return (texts, labels) probabilities; those of a text come from a model that saw no text of its fold.

    vectors: (texts, width) embeddings; labels: (texts,) indexes; folds: (texts,) 0 to FOLDS - 1. `on_done` is called
    with the number of folds that are done.
    """
    label_count = int(labels.max()) + 1
    standardised = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
    features = Features(tfidf_of_tokens(tokens), (standardised * EMBEDDING_SCALE).astype(np.float32))
    predicted = np.full((len(labels), label_count), 1 / label_count, dtype=np.float32)
    for fold in range(FOLDS):
        held_out = folds == fold
        seen = ~held_out
        if held_out.any() and len(np.unique(labels[seen])) > 1:
            views = [[part.words, part.embeddings] for part in (features[seen], features[held_out])]
            model = logistic_regression.fit(views[0], labels[seen], label_count, max_iterations=MAX_ITERATIONS)
            predicted[held_out] = np.exp(model.log_probabilities(views[1]))
        on_done(fold + 1)
    votes = neighbour_votes(standardised, labels, folds, label_count)
    mixed = predicted ** (1 - NEIGHBOUR_SHARE) * (votes + 0.02) ** NEIGHBOUR_SHARE
    return mixed / mixed.sum(1, keepdims=True)


def tfidf_of_tokens(tokens: Tokens, min_texts: int = MIN_TEXTS) -> sparse.csr_matrix:
    """Return the TF-IDF of tokens and token bigrams that occur in at least `min_texts` texts; each row of length 1."""
    from sklearn.feature_extraction.text import TfidfTransformer  # deferred: scikit-learn is slow to import

    ids = tokens.ids.astype(np.int64)
    texts = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
    vocabulary = int(ids.max(initial=0)) + 1
    same_text = texts[:-1] == texts[1:]
    bigrams = (ids[:-1] + 1) * vocabulary + ids[1:]  # unique, and above all token ids
    terms, columns = np.unique(np.concatenate([ids, bigrams[same_text]]), return_inverse=True)
    rows = np.concatenate([texts, texts[:-1][same_text]])
    shape = (len(tokens.lengths), len(terms))
    counts = sparse.csr_matrix((np.ones(len(columns), np.float32), (rows, columns)), shape)
    counts.sum_duplicates()
    frequent = np.bincount(counts.indices, minlength=len(terms)) >= min_texts
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, frequent])


def neighbour_votes(vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray, label_count: int) -> np.ndarray:
    """Return (texts, labels) shares of the labels of the most similar texts in other folds, by cosine similarity."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = torch.from_numpy((vectors / (lengths + 1e-9)).astype(np.float32))
    sample = slice(None, None, -(-len(labels) // MAX_REFERENCES))
    references = unit[sample]
    reference_folds = torch.from_numpy(folds[sample])
    reference_labels = torch.eye(label_count)[torch.from_numpy(labels[sample])]
    neighbours = min(NEIGHBOURS, len(references))
    votes = np.empty((len(labels), label_count), dtype=np.float32)
    for start in range(0, len(labels), NEIGHBOUR_BATCH):
        rows = slice(start, start + NEIGHBOUR_BATCH)
        similarity = unit[rows] @ references.t()
        similarity[torch.from_numpy(folds[rows])[:, None] == reference_folds] = -1.0
        nearest, indexes = similarity.topk(neighbours)
        weights = torch.softmax(nearest * NEIGHBOUR_SHARPNESS, 1)
        votes[rows] = (weights[:, :, None] * reference_labels[indexes]).sum(1).numpy()
    return votes
