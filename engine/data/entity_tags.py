"""Turn entities into one tag per token and back: O outside of entities, B-x for the first token of an entity x, I-x for the others.

Every token has a tag, not only the first one of a word as in CoNLL's scripts: Chinese has no words between blanks, and an
entity may begin or end inside of one ("Taipei's", "@anna", "pre-Apple"). The price is that the tags in a word may contradict
each other; decoding by Viterbi, in which I-x follows only B-x or I-x, leaves no tag without a meaning.

A token that an entity covers in part counts as covered, and goes to the entity that covers most of it. The entity is then found
a few characters too long instead of never; `TaggedEntities` counts these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from engine.data.entities import END, LABEL, ROW, START
from engine.data.entity_windows import Windows

OUTSIDE = 0


@dataclass(frozen=True, slots=True)
class TaggedEntities:
    """tags: (counted tokens,) int64, indexes of tag_names. inexact: entities that these tags don't give back exactly."""

    tags: np.ndarray
    inexact: int


@dataclass(frozen=True, slots=True)
class FoundEntities:
    """Entities that a model finds, ascending by row and start. They do not overlap.

    entities: (entities, 4) int64 as in engine.data.entities. tokens: (entities, 2) int64, the first token of each and the
    one after its last. tags: (counted tokens,) int64. probabilities: (entities,) float64; certainties: (texts,) float64; see
    `entity_probabilities` and `text_certainties`.
    """

    entities: np.ndarray
    tokens: np.ndarray
    tags: np.ndarray
    probabilities: np.ndarray
    certainties: np.ndarray


def tag_names(labels: Sequence[str]) -> list[str]:
    """Return the names of the tags in the order of their indexes: O, B-a, I-a, B-b, I-b."""
    return ["O", *(f"{part}-{label}" for label in labels for part in "BI")]


def tag_tokens(entities: np.ndarray, windows: Windows) -> TaggedEntities:
    """Return the tag of each counted token. entities: (entities, 4), ascending and without overlaps."""
    tags = np.full(len(windows.counted), OUTSIDE, dtype=np.int64)
    if not len(entities) or not len(tags):
        return TaggedEntities(tags, len(entities))

    # One axis for all texts: each begins after the end of the one before.
    width = int(max(windows.spans.max(), entities[:, END].max())) + 1
    token_starts, token_ends = (windows.spans + windows.text_of_counted()[:, None] * width).T
    starts = entities[:, ROW] * width + entities[:, START]
    ends = entities[:, ROW] * width + entities[:, END]

    # All pairs of an entity and a token that share a character; each token goes to the entity that covers most of it.
    first = np.searchsorted(token_ends, starts, side="right")
    counts = np.maximum(np.searchsorted(token_starts, ends, side="left") - first, 0)
    pair_entity = np.repeat(np.arange(len(entities)), counts)
    pair_token = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[pair_entity]
    shared = np.minimum(token_ends[pair_token], ends[pair_entity])
    shared -= np.maximum(token_starts[pair_token], starts[pair_entity])
    order = np.lexsort((pair_entity, -shared, pair_token))
    tokens, best = np.unique(pair_token[order], return_index=True)
    entity_of_token = pair_entity[order][best]

    is_first = np.diff(entity_of_token, prepend=-1) != 0
    tags[tokens] = 2 * entities[entity_of_token, LABEL] + np.where(is_first, 1, 2)
    is_last = np.diff(entity_of_token, append=-1) != 0
    tagged = entity_of_token[is_first]
    exact = (token_starts[tokens[is_first]] == starts[tagged]) & (token_ends[tokens[is_last]] == ends[tagged])
    return TaggedEntities(tags, len(entities) - int(exact.sum()))


def find_entities(logits: np.ndarray, windows: Windows, temperature: float = 1.0) -> FoundEntities:
    """Return the entities of the likeliest valid tags. logits: (counted tokens, tags), of the occurrences that count.

    temperature: what logits are divided by before they become probabilities. It does not change which entities are found.
    """
    tags = _likeliest_tags(log_softmax(logits.astype(np.float64), axis=1), windows.text_starts)
    first = np.flatnonzero(tags % 2 == 1)
    # An entity ends before the next token that is not inside of it, or with its text.
    breaks = np.unique(np.concatenate([np.flatnonzero((tags == OUTSIDE) | (tags % 2 == 1)), windows.text_starts]))
    ends = breaks[np.searchsorted(breaks, first, side="right")]
    entities = np.stack(
        [
            windows.text_of_counted()[first],
            windows.spans[first, 0],
            windows.spans[ends - 1, 1],
            label_of_tags(tags[first]),
        ],
        axis=1,
    )
    separate = _without_shared_characters(entities)
    tokens = np.stack([first, ends], axis=1)[separate]
    own = tag_probabilities(logits, tags, temperature)
    return FoundEntities(
        entities[separate],
        tokens,
        tags,
        probabilities=entity_probabilities(own, tokens),
        certainties=text_certainties(own, windows.text_starts),
    )


def label_of_tags(tags: np.ndarray) -> np.ndarray:
    """Return the label of each tag that is not O, which gets 0."""
    return np.maximum(tags - 1, 0) // 2


def tag_probabilities(logits: np.ndarray, tags: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probability that each token belongs to an entity of its tag's label, or to none if the tag is O: (tokens,).

    logits: (tokens, tags); tags: (tokens,). Whether the token is the first one of the entity makes no difference.
    """
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    tokens = np.arange(len(tags))
    begins = 2 * label_of_tags(tags) + 1
    own = probabilities[tokens, begins] + probabilities[tokens, begins + 1]
    return np.where(tags == OUTSIDE, probabilities[:, OUTSIDE], np.minimum(own, 1.0))  # a rounded sum may exceed 1


def entity_probabilities(own: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the probability of each entity: the smallest one among its tokens. (entities,)

    own: (counted tokens,) of `tag_probabilities`; tokens: (entities, 2) of FoundEntities. An entity is right only if all of
    its tokens are, and a mean would hide a doubtful end. Unlike a product, it does not fall with the number of tokens, whose
    errors depend on each other.
    """
    return _smallest(own, tokens[:, 0], tokens[:, 1])


def text_certainties(own: np.ndarray, text_starts: np.ndarray) -> np.ndarray:
    """Return the probability of the least certain token of each text, 1 for a text without any: (texts,)."""
    return _smallest(own, text_starts[:-1], text_starts[1:])


def _smallest(values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the smallest value from each start up to its end, 1 where they are equal. Parts are ascending and separate."""
    smallest = np.ones(len(starts))
    has_any = starts < ends
    if has_any.any():
        # Every second part of what reduceat sees lies between two of ours.
        bounds = np.stack([starts[has_any], ends[has_any]], axis=1).ravel()
        smallest[has_any] = np.minimum.reduceat(np.append(values, 1.0), bounds)[::2]
    return smallest


def _without_shared_characters(entities: np.ndarray) -> np.ndarray:
    """Return the indexes of the entities that begin where the one before has ended: (entities,).

    Tokens of a byte-pair tokenizer may be parts of one character, and an untrained model may give them several entities.
    """
    same_row = entities[1:, ROW] == entities[:-1, ROW]
    if not np.any(same_row & (entities[1:, START] < entities[:-1, END])):
        return np.arange(len(entities))
    separate: list[int] = []
    for index, entity in enumerate(entities):
        before = entities[separate[-1]] if separate else None
        if before is None or before[ROW] != entity[ROW] or before[END] <= entity[START]:
            separate.append(index)
    return np.array(separate)


def _likeliest_tags(log_probabilities: np.ndarray, text_starts: np.ndarray) -> np.ndarray:
    """Return the likeliest tags of each text in which every I-x follows B-x or I-x: (tokens,)."""
    tags = log_probabilities.argmax(axis=1)
    is_inside = (tags > 0) & (tags % 2 == 0)
    before = np.concatenate([[OUTSIDE], tags[:-1]])
    before[text_starts[:-1][text_starts[:-1] < len(tags)]] = OUTSIDE
    invalid = np.flatnonzero(is_inside & (before != tags) & (before != tags - 1))
    # What is likeliest token by token and valid is likeliest as a whole, so that few texts are left.
    for text in np.unique(np.searchsorted(text_starts, invalid, side="right") - 1):
        part = slice(text_starts[text], text_starts[text + 1])
        tags[part] = _viterbi(log_probabilities[part])
    return tags


def _viterbi(log_probabilities: np.ndarray) -> np.ndarray:
    """Return the likeliest valid tags of one text, (tokens,), for log_probabilities: (tokens, tags)."""
    count = log_probabilities.shape[1]
    begins = np.arange(1, count, 2)
    insides = begins + 1
    scores = log_probabilities[0].copy()
    scores[insides] = -np.inf
    sources = np.empty(log_probabilities.shape, dtype=np.int64)
    for token in range(1, len(log_probabilities)):
        # O and B-x may follow any tag, I-x only B-x or I-x.
        sources[token] = scores.argmax()
        sources[token, insides] = np.where(scores[begins] >= scores[insides], begins, insides)
        scores = scores[sources[token]] + log_probabilities[token]
    tags = np.empty(len(log_probabilities), dtype=np.int64)
    tags[-1] = scores.argmax()
    for token in range(len(tags) - 1, 0, -1):
        tags[token - 1] = sources[token, tags[token]]
    return tags
