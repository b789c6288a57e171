"""Embeddings of texts, and the linear probe's predictions for texts that it never saw."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from engine import devices
from engine.data.embeddings import embed
from engine.data.linear_probe import held_out_probabilities, tfidf_of_tokens
from samples import SAMPLE_BASE_MODEL, base_model_path

TEXTS = ["a lovely day", "the worst of all services that I have ever seen in this town", "ok", "a lovely day", "好的"]


@pytest.fixture
def in_fp32(monkeypatch):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: False)


@pytest.mark.medium
def test_embeddings_are_the_means_of_transformers_hidden_states(in_fp32):
    _, embeddings = embed(TEXTS, base=base_model_path(), name=SAMPLE_BASE_MODEL)
    tokenizer, model = (kind.from_pretrained(base_model_path()) for kind in (AutoTokenizer, AutoModel))
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][:, :, None]
    expected = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    assert np.allclose(embeddings, expected, atol=1e-4)


@pytest.mark.medium
def test_embeddings_do_not_depend_on_the_batch(in_fp32, monkeypatch):
    _, together = embed(TEXTS, base=base_model_path(), name=SAMPLE_BASE_MODEL)
    monkeypatch.setattr("engine.data.embeddings.MOST_ROWS", 1)
    counts: list[int] = []
    _, alone = embed(TEXTS, base=base_model_path(), name=SAMPLE_BASE_MODEL, on_done=counts.append)
    assert np.allclose(together, alone, atol=1e-4) and counts == [1, 2, 3, 4, 5]


@pytest.mark.medium
def test_tfidf_rows_are_unit_vectors_and_equal_for_equal_texts():
    tokens, _ = embed(TEXTS, base=base_model_path(), name=SAMPLE_BASE_MODEL)
    tfidf = tfidf_of_tokens(tokens).toarray()
    assert np.allclose(tfidf[0], tfidf[3]) and np.allclose(np.linalg.norm(tfidf, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_flipped_labels_get_the_lowest_probability():
    rng = np.random.default_rng(0)
    words = [["lovely", "warm", "kind", "happy"], ["awful", "cold", "rude", "grim"]]
    labels = rng.integers(0, 2, 200)
    texts = [f"the room {i} was {' and '.join(rng.choice(words[label], 2))}" for i, label in enumerate(labels)]
    flipped = rng.choice(200, 10, replace=False)
    labels[flipped] = 1 - labels[flipped]
    tokens, vectors = embed(texts, base=base_model_path(), name=SAMPLE_BASE_MODEL)
    probabilities = held_out_probabilities(tokens, vectors, labels, np.arange(200) % 5)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert set(np.argsort(probabilities[np.arange(200), labels])[:10]) == set(flipped)
