"""What a person should know about the data of a run before it trains, as notices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.data.labelled_rows import SPLIT_NAMES
from engine.events import Notice
from engine.sentences import Sentence, gettext_noop

MOST_SHOWN = 10  # labels in a notice
LONGEST_SHOWN = 60  # characters of a label
MUCH_MORE = 1.5  # times the share that was asked for


def data_notices(facts: Mapping[str, Any]) -> Iterator[Notice]:
    """Yield the notices about a task's facts, which metrics.json holds in full under `data`."""
    rare = facts.get("rare_labels", [])
    if rare:
        message = Sentence(
            gettext_noop("Labels with fewer than two training rows ({count}): {names}."),
            count=len(rare),
            names=list_names(map(shorten, rare)),
        )
        yield Notice("warning", "rare_label", message)

    similar = facts.get("similar_labels", [])
    if similar:
        groups = list_names(" and ".join(repr(shorten(label)) for label in group[:3]) for group in similar)
        message = Sentence(
            gettext_noop("Labels that differ only in blanks or case are trained as different ones: {groups}."),
            groups=groups,
        )
        yield Notice("warning", "similar_labels", message)

    rows_without_split = facts.get("skipped_by_reason", {}).get("unknown_split")
    if rows_without_split:
        split_names = ", ".join(SPLIT_NAMES)
        message = Sentence(
            gettext_noop("{count} rows were skipped, because the name of their split is missing or none of: {names}."),
            count=rows_without_split,
            names=split_names,
        )
        yield Notice("warning", "unknown_split", message)

    share = facts.get("held_out_share")
    # One row of each label is held out in any case, so that each label is evaluated.
    if share is not None and share > MUCH_MORE * facts["eval_fraction"] + (
        len(facts["labels"]) / max(1, facts["train_rows"] + facts["eval_rows"])
    ):
        message = Sentence(
            gettext_noop(
                "{share:.0%} of the rows are held out for evaluation instead of {wanted:.0%}: near-duplicates stay on one "
                "side, so that none is evaluated on what was learned, and here many rows are alike."
            ),
            share=share,
            wanted=facts["eval_fraction"],
        )
        yield Notice("warning", "held_out_share", message)

    truncated = facts.get("truncated_rows")
    if truncated:
        message = Sentence(
            gettext_noop("{count} texts were truncated to {limit} tokens."), count=truncated, limit=facts["max_length"]
        )
        yield Notice("info", "truncated", message)

    yield from entity_notices(facts)


def entity_notices(facts: Mapping[str, Any]) -> Iterator[Notice]:
    """Yield the notices about entities that are not learned as they stand in the data."""
    overlapping = facts.get("overlapping_spans")
    if overlapping:
        message = Sentence(
            gettext_noop(
                "{count} entities were left out, because they overlap with a longer one. Each text is tagged once."
            ),
            count=overlapping,
        )
        yield Notice("warning", "overlapping_spans", message)

    unusable = facts.get("unusable_spans")
    if unusable:
        message = Sentence(
            gettext_noop(
                "{count} entities were left out, because they end behind their text or hold nothing but white space."
            ),
            count=unusable,
        )
        yield Notice("warning", "unusable_spans", message)

    inexact = facts.get("inexact_spans")
    if inexact:
        message = Sentence(
            gettext_noop(
                "{count} entities begin or end inside of a token of the base model, which can't find them exactly. "
                "They count as errors. If there are many, choose another base model."
            ),
            count=inexact,
        )
        yield Notice("warning", "inexact_spans", message)


def list_names(names: Iterable[str]) -> str:
    """Return the first names as a phrase, and how many there are beyond them."""
    names = list(names)
    shown = ", ".join(names[:MOST_SHOWN])
    rest = len(names) - MOST_SHOWN
    return Sentence(gettext_noop("{names} and {count} more"), names=shown, count=rest) if rest > 0 else shown


def shorten(name: str) -> str:
    """Return a label's name, or its beginning if it is long."""
    return name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}…"
