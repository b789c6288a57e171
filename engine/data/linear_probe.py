"""What a quick model says of texts that it never saw: a linear probe in folds, and the vote of the nearest texts.

Two views of a text go into one multinomial logistic regression: its tokens and pairs of neighbouring tokens, weighted by
TF-IDF, and its embedding, standardised. Token ids are words enough in every language that the base model can read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import minimize

from engine.data.tokens import Tokens

FOLDS = 5
EMBEDDING_SCALE = 0.03  # of standardised coordinates: a text's embedding then weighs about half of its words
KNN_SHARE, NEIGHBOURS, KNN_SHARPNESS = 0.2, 30, 10.0
MOST_REFERENCES = 40_000  # texts that others are compared with; beyond, an even sample
ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class View:
    """One text per row. words: (texts, terms) sparse; vectors: (texts, width); both float32."""

    words: sparse.csr_matrix
    vectors: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> View:
        return View(self.words[rows], self.vectors[rows])


def held_out_probabilities(
    tokens: Tokens,
    vectors: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    on_done: Callable[[int], None] = lambda folds: None,
) -> np.ndarray:
    """(texts, labels) probabilities; each text's come from a model that saw no text of its fold.

    vectors: (texts, width); labels: (texts,) indexes; folds: (texts,) 0 to FOLDS - 1.
    """
    count = int(labels.max()) + 1
    standard = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
    view = View(bag_of_tokens(tokens), (standard * EMBEDDING_SCALE).astype(np.float32))
    found = np.full((len(labels), count), 1 / count, dtype=np.float32)
    for fold in range(FOLDS):
        held, seen = folds == fold, folds != fold
        if held.any() and len(np.unique(labels[seen])) > 1:
            found[held] = _probe(view[seen], labels[seen], view[held], count)
        on_done(fold + 1)
    votes = neighbour_votes(standard, labels, folds, count)
    mixed = found ** (1 - KNN_SHARE) * (votes + 0.02) ** KNN_SHARE
    return mixed / mixed.sum(1, keepdims=True)


def bag_of_tokens(tokens: Tokens, fewest: int = 2) -> sparse.csr_matrix:
    """TF-IDF of tokens and neighbouring pairs that stand in at least `fewest` texts; rows of length 1."""
    ids = tokens.ids.astype(np.int64)
    rows = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
    vocabulary = int(ids.max(initial=0)) + 1
    inside = rows[:-1] == rows[1:]
    terms = np.concatenate([ids, (ids[:-1] + 1)[inside] * vocabulary + ids[1:][inside]])
    names, columns = np.unique(terms, return_inverse=True)
    places = (np.concatenate([rows, rows[:-1][inside]]), columns)
    counts = sparse.csr_matrix((np.ones(len(columns), np.float32), places), (len(tokens.lengths), len(names)))
    counts.sum_duplicates()
    texts_with = np.bincount(counts.indices, minlength=counts.shape[1])
    kept = texts_with >= fewest
    counts = counts[:, kept].tocsr()
    weights = np.log((1 + counts.shape[0]) / (1 + texts_with[kept])) + 1
    counts.data = ((1 + np.log(counts.data)) * weights[counts.indices]).astype(np.float32)
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(1)).ravel())
    return sparse.diags_array(1 / np.maximum(lengths, 1e-9)).dot(counts).tocsr().astype(np.float32)


def _probe(seen: View, labels: np.ndarray, held: View, count: int) -> np.ndarray:
    """Multinomial logistic regression with an L2 penalty of 1/2, by L-BFGS: (held texts, labels) probabilities."""
    terms, width = seen.words.shape[1], seen.vectors.shape[1]
    edges = [terms * count, (terms + width) * count]
    answers = np.eye(count, dtype=np.float32)[labels]
    words_t, vectors_t = seen.words.T.tocsr(), np.ascontiguousarray(seen.vectors.T)

    def parts(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        of_words, of_vectors, bias = np.split(flat.astype(np.float32), edges)
        return of_words.reshape(terms, count), of_vectors.reshape(width, count), bias

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        of_words, of_vectors, bias = parts(flat)
        log_p = _log_softmax(seen.words @ of_words + seen.vectors @ of_vectors + bias)
        off = np.exp(log_p) - answers
        gradient = [(words_t @ off + of_words).ravel(), (vectors_t @ off + of_vectors).ravel(), off.sum(0)]
        penalty = 0.5 * float(np.square(flat[: edges[1]]).sum())
        return penalty - float((log_p * answers).sum(dtype=np.float64)), np.concatenate(gradient).astype(np.float64)

    start = np.zeros(edges[1] + count)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "ftol": 1e-6})
    of_words, of_vectors, bias = parts(best.x)
    return np.exp(_log_softmax(held.words @ of_words + held.vectors @ of_vectors + bias))


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def neighbour_votes(vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray, count: int) -> np.ndarray:
    """Labels of the most similar texts of other folds, by cosine: (texts, labels) shares."""
    unit = torch.from_numpy((vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)).astype(np.float32))
    step = -(-len(labels) // MOST_REFERENCES)
    there = slice(None, None, step)
    references, folds_there = unit[there], torch.from_numpy(folds[there])
    answers = torch.eye(count)[torch.from_numpy(labels[there])]
    nearest = min(NEIGHBOURS, len(references))
    found = np.empty((len(labels), count), dtype=np.float32)
    for at in range(0, len(labels), 1024):
        rows = slice(at, at + 1024)
        similar = unit[rows] @ references.t()
        similar[torch.from_numpy(folds[rows])[:, None] == folds_there] = -1.0
        closeness, which = similar.topk(nearest)
        weights = torch.softmax(closeness * KNN_SHARPNESS, 1)
        found[rows] = (weights[:, :, None] * answers[which]).sum(1).numpy()
    return found
