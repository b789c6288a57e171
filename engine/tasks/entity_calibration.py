"""A temperature that makes the probabilities of entities mean what they say.

As in engine.tasks.calibration, what is reported about a text comes from a temperature that was fitted on other texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from engine.data.entities import ROW
from engine.data.entity_tags import FoundEntities, entity_probabilities, tag_probabilities, text_certainties
from engine.data.entity_windows import Windows
from engine.tasks.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    PRIOR_WEIGHT,
    compare_probabilities,
    describe_answers,
)
from engine.tasks.folds import FOLDS

SMALLEST = 1e-12  # a probability of which a logarithm is taken


def entity_calibration(
    logits: np.ndarray, windows: Windows, decoded: FoundEntities, true: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Return the part `calibration` of metrics.json for a model that finds entities; empty if it found none.

    logits: (counted tokens, tags); decoded: what `find_entities` returns for them; true: (entities, 4). The diagrams and
    their errors compare the probability of each entity that was found with how often it is right: start, end and label. The
    coverage and `confident_from` are about whole texts: an answer is right if its entities are, and none is missing.
    """
    if not len(decoded.entities):
        return {}
    is_right, text_is_right = compare_entities(decoded.entities, true, len(windows.text_starts) - 1)
    folds = np.random.default_rng(seed).permutation(len(text_is_right)) % FOLDS
    after, certainties = np.empty(len(is_right)), np.empty(len(text_is_right))
    fold_of_entity = folds[decoded.entities[:, ROW]]
    for fold in range(FOLDS):
        own = tag_probabilities(
            logits, decoded.tags, fit_entity_temperature(logits, decoded, is_right, fold_of_entity != fold)
        )
        is_own = fold_of_entity == fold
        after[is_own] = entity_probabilities(own, decoded.tokens)[is_own]
        certainties[folds == fold] = text_certainties(own, windows.text_starts)[folds == fold]
    return {
        "temperature": fit_entity_temperature(logits, decoded, is_right, np.ones(len(is_right), dtype=bool)),
        "entities": len(is_right),
        **compare_probabilities(decoded.probabilities, after, is_right),
        **describe_answers(certainties, text_is_right),
    }


def compare_entities(predicted: np.ndarray, true: np.ndarray, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which predicted entities are true, (entities,), and which texts have just the true ones, (texts,); both bool."""
    true_set = {tuple(entity) for entity in true.tolist()}
    is_right = np.array([tuple(entity) in true_set for entity in predicted.tolist()], dtype=bool)
    right = np.bincount(predicted[is_right, ROW], minlength=texts)
    wanted = np.bincount(true[:, ROW], minlength=texts)
    return is_right, (right == wanted) & (np.bincount(predicted[:, ROW], minlength=texts) == wanted)


def fit_entity_temperature(
    logits: np.ndarray, decoded: FoundEntities, is_right: np.ndarray, chosen: np.ndarray
) -> float:
    """Return the temperature with which the chosen entities' probabilities fit best to which of them are right.

    is_right, chosen: (entities,) bool. The loss is their binary cross entropy, with the penalty of `fit_temperature`, so that
    the temperature stays near 1 as long as the entities are too few to say otherwise, and is 1 without any.
    """
    tokens = decoded.tokens[chosen]
    lengths = tokens[:, 1] - tokens[:, 0]
    ends = np.cumsum(lengths)
    places = np.repeat(tokens[:, 0] - (ends - lengths), lengths) + np.arange(lengths.sum())
    own_logits, own_tags = logits[places], decoded.tags[places]
    own_tokens = np.stack([ends - lengths, ends], axis=1)
    right = is_right[chosen]

    def loss(log_scale: float) -> float:
        scale = float(np.exp(log_scale))
        own = tag_probabilities(own_logits, own_tags, 1 / scale)
        probabilities = entity_probabilities(own, own_tokens).clip(SMALLEST, 1 - SMALLEST)
        likelihood = np.where(right, np.log(probabilities), np.log1p(-probabilities)).sum()
        return float(PRIOR_WEIGHT * (scale - log_scale) - likelihood)

    bounds = (-np.log(HIGHEST_TEMPERATURE), -np.log(LOWEST_TEMPERATURE))
    return float(np.exp(-minimize_scalar(loss, bounds=bounds, method="bounded").x))
