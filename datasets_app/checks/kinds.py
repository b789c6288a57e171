"""The checks of what only some kinds of data have: several labels of a text, spans, pairs of texts."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import polars as pl

from datasets_app.checks.checked_rows import CheckedRows, CheckResult


def empty_labels(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find rows without any label in multi-label data, and texts without any span."""
    if rows.kind in ("multi_label", "spans"):
        empty = rows.frame.filter(pl.col("label") == "[]")
        yield from rows.results("no_labels", "info", empty.select("row"))


def labels_never_alone(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find labels that stand only beside one other: a model cannot tell the two apart."""
    if rows.kind != "multi_label":
        return
    companions: dict[str, set[str]] = {}
    for stored in rows.frame["label"].unique():
        labels = json.loads(stored)
        for label in labels:
            others = {*labels} - {label}
            companions[label] = others if label not in companions else companions[label] & others
    pairs = {label: sorted(others) for label, others in companions.items() if others}
    if not pairs:
        return
    wanted = [json.dumps(label, ensure_ascii=False) for label in pairs]
    concerned = rows.frame.filter(pl.col("label").str.contains_any(wanted)).select("row")
    for result in rows.results("never_alone", "info", concerned):
        result.count = len(pairs)
        result.examples = [{"label": label, "always_with": ", ".join(others)} for label, others in [*pairs.items()][:5]]
        result.rows = []
        yield result


def span_faults(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find spans beyond the end of their text or without length, and spans that overlap."""
    if rows.kind != "spans":
        return
    beyond = []
    overlapping = []
    for row, text, stored in rows.frame.select("row", "text", "label").iter_rows():
        spans = json.loads(stored)
        if any(not 0 <= span["start"] < span["end"] <= len(text) for span in spans):
            beyond.append(row)
        if any(a["end"] > b["start"] for a, b in pairwise(spans)):
            overlapping.append(row)
    yield from rows.results("span_beyond_text", "error", _rows(rows, beyond))
    yield from rows.results("overlapping_spans", "warning", _rows(rows, overlapping))


def pair_faults(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find pairs of a text with itself, and pairs that stand in two splits, even the other way round."""
    if "text_pair" not in rows.frame.columns:
        return
    same = rows.frame.filter(pl.col("text").str.strip_chars() == pl.col("text_pair").str.strip_chars())
    yield from rows.results("same_pair", "warning", same.select("row"))
    if "split" not in rows.frame.columns:
        return
    first = pl.min_horizontal("text", "text_pair").hash(1)
    second = pl.max_horizontal("text", "text_pair").hash(2)
    splits = pl.col("split").n_unique().over("pair")
    leaked = rows.frame.select("row", "split", (first ^ second).alias("pair")).filter(splits > 1)
    yield from rows.results("pair_leakage", "error", leaked.select("row", "split"), {"split": "split"})


def _rows(rows: CheckedRows, numbers: list[Any]) -> pl.DataFrame:
    return rows.frame.filter(pl.col("row").is_in(numbers)).select("row")


KIND_CHECKS = (empty_labels, labels_never_alone, span_faults, pair_faults)
