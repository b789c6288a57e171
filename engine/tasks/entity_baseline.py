"""A dictionary of the entities of the training rows, which says what a run's own scores are worth."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from engine.tasks.entity_metrics import Entity, entity_f1
from engine.tasks.linear_baseline import CPU_SECONDS, time_limit

# A word of Latin, Greek or Cyrillic letters and digits (with combining accents), or any other character on its own:
# Chinese, Japanese and Thai have no spaces, and Korean words end in particles.
PIECE = re.compile(r"[0-9A-Za-z\u00c0-\u024f\u0300-\u052f\u1e00-\u1fff]+|\S")
Pieces = tuple[str, ...]


def dictionary_entity_f1(
    train_texts: Sequence[str],
    train_entities: Iterable[Entity],
    held_out_texts: Sequence[str],
    held_out_entities: Iterable[Entity],
) -> float:
    """Return the strict F1 of marking what was an entity in training, with the label that it had most often.

    The row of an entity is its index in the texts of its split. From left to right, the longest known entity is taken that
    begins and ends where a word does. Upper and lower case differ.

    Raises BaselineTooSlowError.
    """
    check_time = time_limit(CPU_SECONDS)
    counts: dict[Pieces, Counter[str]] = defaultdict(Counter)  # of the labels of each entity
    for row, start, end, label in train_entities:
        counts[tuple(PIECE.findall(train_texts[row][start:end]))][label] += 1
    counts.pop((), None)  # blanks only
    # The first by name among labels that are as frequent.
    labels = {pieces: min(known, key=lambda label: (-known[label], label)) for pieces, known in counts.items()}
    return entity_f1(_mark_entities(held_out_texts, labels, check_time), held_out_entities)


def _mark_entities(texts: Sequence[str], labels: dict[Pieces, str], check_time: Callable[[], None]) -> Iterator[Entity]:
    """Yield what the dictionary marks in each text."""
    sizes: dict[str, set[int]] = defaultdict(set)  # in pieces, of the entities that begin with this piece
    for pieces in labels:
        sizes[pieces[0]].add(len(pieces))
    longest_first = {first: sorted(lengths, reverse=True) for first, lengths in sizes.items()}
    for row, text in enumerate(texts):
        check_time()
        matches = list(PIECE.finditer(text))
        words = [match.group() for match in matches]
        end = 0  # of what is marked, in words
        for position, word in enumerate(words):
            if position < end or word not in longest_first:
                continue
            for length in longest_first[word]:
                entity = tuple(words[position : position + length])
                if entity in labels:
                    end = position + len(entity)
                    yield row, matches[position].start(), matches[end - 1].end(), labels[entity]
                    break
