"""Entities as tags of tokens: which token an entity gets, and the likeliest valid tags back to entities."""

from itertools import product

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from engine.data.entities import select_learnable
from engine.data.entity_tags import find_entities, tag_names, tag_tokens
from engine.data.entity_windows import Windows, cut_into_windows

OUT, BX, IX, BY, IY = range(5)


def word_windows(texts: list[str]) -> Windows:
    """Return windows of whole words between blanks."""
    words = sorted({word for text in [*texts, "any"] for word in text.split()})
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return cut_into_windows(texts, tokenizer, 512)


def byte_windows() -> Windows:
    """Return the windows of "ab", whose characters are three and two tokens, and one of them a part of both."""
    spans = np.array([[0, 1], [0, 1], [0, 2], [1, 2]])
    return Windows(
        ids=np.arange(4, dtype=np.int32),
        offsets=np.array([0, 4]),
        truncated=0,
        rows=np.array([0]),
        counted=np.arange(4),
        spans=spans,
        text_starts=np.array([0, 4]),
    )


def entities_of(*rows: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def test_tags_are_named_as_published_models_name_them():
    assert tag_names(["LOC", "PER"]) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_each_token_of_an_entity_has_a_tag():
    windows = word_windows(["New York and Rome", "Rome"])
    tagged = tag_tokens(entities_of((0, 0, 8, 0), (0, 13, 17, 0), (1, 0, 4, 1)), windows)
    assert tagged.tags.tolist() == [BX, IX, OUT, BX, BY] and tagged.inexact == 0


def test_token_that_is_covered_in_part_is_tagged_and_its_entity_counted():
    windows = word_windows(["in Taipei's old town"])
    tagged = tag_tokens(entities_of((0, 3, 9, 0)), windows)
    assert tagged.tags.tolist() == [OUT, BX, OUT, OUT] and tagged.inexact == 1
    assert tag_tokens(entities_of((0, 4, 5, 0)), windows).tags.tolist() == [OUT, BX, OUT, OUT]


def test_token_of_two_entities_goes_to_the_one_that_covers_more_of_it():
    windows = word_windows(["abcde fg"])
    tagged = tag_tokens(entities_of((0, 0, 2, 0), (0, 2, 8, 1)), windows)
    assert tagged.tags.tolist() == [BY, IY] and tagged.inexact == 2
    assert tag_tokens(entities_of((0, 0, 1, 0), (0, 1, 2, 0), (0, 3, 5, 1)), windows).tags.tolist() == [BY, OUT]


def test_entity_without_any_token_is_counted():
    windows = word_windows(["a  b", ""])
    assert tag_tokens(entities_of((0, 1, 2, 0)), windows).inexact == 1
    assert tag_tokens(entities_of(), windows).inexact == 0
    empty = word_windows([" "])
    assert len(empty.counted) == 0
    assert tag_tokens(entities_of((0, 0, 1, 0)), empty).inexact == 1
    assert len(find_entities(np.empty((0, 5), np.float32), empty).entities) == 0


def test_parts_of_one_character_are_one_entity_and_not_two():
    windows = byte_windows()
    tagged = tag_tokens(entities_of((0, 0, 1, 0), (0, 1, 2, 1)), windows)
    assert tagged.tags.tolist() == [BX, IX, IX, BY] and tagged.inexact == 1
    decoded = find_entities(20.0 * np.eye(5)[[BX, BX, BY, BY]], windows)
    assert decoded.entities.tolist() == [[0, 0, 1, 0], [0, 1, 2, 1]]


def test_neighbouring_entities_of_one_label_stay_apart():
    windows = word_windows(["a b c d"])
    decoded = find_entities(20.0 * np.eye(5)[[BX, BX, IX, BY]], windows)
    assert decoded.entities.tolist() == [[0, 0, 1, 0], [0, 2, 5, 0], [0, 6, 7, 1]]


def test_entity_ends_with_its_text():
    windows = word_windows(["a b", "c d"])
    decoded = find_entities(20.0 * np.eye(5)[[OUT, BX, IX, IX]], windows)
    assert decoded.entities.tolist()[0] == [0, 2, 3, 0]  # the next text begins with what can't begin one
    assert decoded.entities[:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(20))
def test_tags_are_the_likeliest_of_all_valid_ones(seed):
    windows = word_windows(["a b c d e", "f", "g h"])
    logits = np.random.default_rng(seed).normal(size=(8, 5)) * 2
    decoded = find_entities(logits, windows)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    best: list[int] = []
    for start, end in ((0, 5), (5, 6), (6, 8)):
        part = log_probabilities[start:end]
        candidates = [tags for tags in product(range(5), repeat=len(part)) if is_valid(tags)]
        best += max(candidates, key=lambda tags: sum(part[i, tag] for i, tag in enumerate(tags)))
    again = find_entities(20.0 * np.eye(5)[best], windows)
    assert decoded.entities.tolist() == again.entities.tolist()


def is_valid(tags: tuple[int, ...]) -> bool:
    before = (OUT, *tags[:-1])
    return all(tag not in (IX, IY) or previous in (tag, tag - 1) for previous, tag in zip(before, tags, strict=True))


def test_probability_is_that_of_the_least_certain_token_to_be_of_the_label():
    windows = word_windows(["a b c"])
    probabilities = np.array([[0.1, 0.6, 0.2, 0.05, 0.05], [0.2, 0.1, 0.5, 0.1, 0.1], [0.96, 0.01, 0.01, 0.01, 0.01]])
    decoded = find_entities(np.log(probabilities), windows)
    assert decoded.entities.tolist() == [[0, 0, 3, 0]]
    assert decoded.probabilities == pytest.approx([0.6])


def test_longest_of_overlapping_entities_is_learned_and_the_rest_counted():
    texts = ["University of Taipei in Taipei", "Rome"]
    entities = entities_of((1, 0, 4, 0), (0, 14, 20, 0), (0, 0, 20, 1), (0, 24, 30, 0), (0, 24, 30, 1))
    selected = select_learnable(texts, entities)
    assert selected.entities.tolist() == [[0, 0, 20, 1], [0, 24, 30, 0], [1, 0, 4, 0]]
    assert (selected.overlapping, selected.unusable) == (2, 0)


def test_entity_that_a_left_out_one_overlaps_with_is_kept():
    selected = select_learnable(["abcdefghij"], entities_of((0, 0, 5, 0), (0, 4, 8, 0), (0, 7, 10, 0)))
    assert selected.entities.tolist() == [[0, 0, 5, 0], [0, 7, 10, 0]] and selected.overlapping == 1


def test_white_space_around_an_entity_is_taken_off_and_what_is_left_empty_is_counted():
    texts = [" Rome\u3000 is old"]
    entities = entities_of((0, 0, 7, 0), (0, 5, 7, 0), (0, 9, 9, 0), (0, 8, 99, 0), (0, -1, 2, 0))
    selected = select_learnable(texts, entities)
    assert selected.entities.tolist() == [[0, 1, 5, 0]] and selected.unusable == 4
    assert select_learnable([], entities_of()).entities.shape == (0, 4)
