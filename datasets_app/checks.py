"""The checks behind the validation report. Plain polars over the rows; each yields one finding or none."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from .canonical import counts
from .columns import Rows

SHORTEST, LONGEST = 3, 2000  # characters
FEWEST_ROWS = 10  # of a label; below, neither learning nor evaluation means anything
IMBALANCE = 5  # times the rows of the smallest label
EXAMPLES = 5

_MARKUP = (
    r"(?i)</?(?:a|b|i|p|br|hr|em|li|ul|ol|div|img|span|font|table|td|tr|strong|script|style|h[1-6])\b[^<>]{0,300}>"
    r"|&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,6});"
)
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
_MOJIBAKE = r"\x{fffd}|Ã[\x{80}-\x{bf}]|â€|ï»¿|ï¿½|Â[\x{a0}-\x{bf}]|[ÃÂ][ƒ‚]|锟斤拷|烫烫"
EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
PHONE = (
    r"\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}\b"  # international
    r"|\(?\b\d{3}\)?[ .-]\d{3}[.-]\d{4}\b"  # North America
    r"|\b09\d{2}[ -]?\d{3}[ -]?\d{3}\b|\(?\b0[2-8]\)?[ -]\d{3,4}[ -]?\d{4}\b"  # Taiwan: mobile, landline
)
TAIWAN_ID = r"\b[A-Z][1289]\d{8}\b"
_TAIWAN_ID_LETTERS = "ABCDEFGHJKLMNPQRSTUVXYWZIO"  # the letters in the order of their values, 10 to 35


@dataclass
class Found:
    """One line of the report; rows count from 1 after the header."""

    code: str
    severity: str  # error, warning or info
    count: int
    examples: list[dict[str, Any]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # all of them, for what repairs them


def run(rows: Rows) -> list[Found]:
    """All findings, worst first."""
    frame = rows.frame.with_columns(same_text().alias("same"))
    found = [f for check in CHECKS for f in check(frame)]
    if rows.skipped:
        found.append(Found("empty_text", "warning", rows.skipped, rows.skipped_examples))
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda f: (order[f.severity], -f.count))


def same_text() -> pl.Expr:
    """Texts that differ only in case and white space are the same one."""
    return pl.col("text").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def examples(frame: pl.DataFrame, **more: str) -> list[dict[str, Any]]:
    """The first rows as the report shows them; `more` names further columns to keep."""
    return [
        {"row": r["row"], "text": r["text"][:200], "label": r["label"], **{key: r[col] for key, col in more.items()}}
        for r in frame.head(EXAMPLES).iter_rows(named=True)
    ]


def _finding(code: str, severity: str, frame: pl.DataFrame, **more: str) -> Iterator[Found]:
    if frame.height:
        yield Found(code, severity, frame.height, examples(frame, **more), frame["row"].to_list())


def too_short(frame: pl.DataFrame) -> Iterator[Found]:
    short = pl.col("text").str.strip_chars().str.len_chars() < SHORTEST
    yield from _finding("too_short", "warning", frame.filter(short))


def too_long(frame: pl.DataFrame) -> Iterator[Found]:
    yield from _finding("too_long", "info", frame.filter(pl.col("text").str.len_chars() > LONGEST))


def exact_duplicate(frame: pl.DataFrame) -> Iterator[Found]:
    first = pl.col("row").first().over("text", "label").alias("first")
    repeated = frame.with_columns(first).filter(pl.col("row") != pl.col("first"))
    yield from _finding("exact_duplicate", "warning", repeated, same_as_row="first")


def label_conflict(frame: pl.DataFrame) -> Iterator[Found]:
    kinds = pl.col("label").n_unique().over("same")
    yield from _finding("label_conflict", "warning", frame.filter(kinds > 1).sort("same", "row"))


def split_leakage(frame: pl.DataFrame) -> Iterator[Found]:
    if "split" in frame.columns:
        kinds = pl.col("split").n_unique().over("same")
        yield from _finding("split_leakage", "error", frame.filter(kinds > 1).sort("same", "row"), split="split")


def label_imbalance(frame: pl.DataFrame) -> Iterator[Found]:
    labels = counts(frame["label"])
    if max(labels.values()) >= IMBALANCE * min(labels.values()):
        shown = [{"label": label, "rows": n} for label, n in [*labels.items()][:EXAMPLES]]
        yield Found("label_imbalance", "warning", max(labels.values()), shown)


def rare_label(frame: pl.DataFrame) -> Iterator[Found]:
    rare = {label: n for label, n in counts(frame["label"]).items() if n < FEWEST_ROWS}
    if not rare:
        return
    firsts = {r["label"]: r for r in frame.filter(pl.col("label").is_in([*rare])).unique("label").iter_rows(named=True)}
    shown = [
        {"row": firsts[label]["row"], "text": firsts[label]["text"][:200], "label": label, "rows": n}
        for label, n in sorted(rare.items(), key=lambda item: item[1])[:EXAMPLES]
    ]
    rows = frame.filter(pl.col("label").is_in([*rare]))["row"].to_list()
    yield Found("rare_label", "error" if min(rare.values()) == 1 else "warning", len(rare), shown, rows)


def markup(frame: pl.DataFrame) -> Iterator[Found]:
    yield from _finding("markup", "info", frame.filter(pl.col("text").str.contains(_MARKUP)))


def control_characters(frame: pl.DataFrame) -> Iterator[Found]:
    yield from _finding("control_characters", "info", frame.filter(pl.col("text").str.contains(CONTROL)))


def encoding(frame: pl.DataFrame) -> Iterator[Found]:
    from ftfy.badness import is_bad

    suspects = frame.filter(pl.col("text").str.contains(r"[^\x00-\x7f]"))
    broken = suspects["text"].str.contains(_MOJIBAKE) | pl.Series(map(is_bad, suspects["text"]), dtype=pl.Boolean)
    yield from _finding("encoding", "warning", suspects.filter(broken))


def personal_data(frame: pl.DataFrame) -> Iterator[Found]:
    text = pl.col("text")
    ids = text.str.extract_all(TAIWAN_ID).list.eval(pl.element().map_elements(is_taiwan_id, pl.Boolean)).list.any()
    has_id = pl.when(text.str.contains(TAIWAN_ID)).then(ids).otherwise(False)
    yield from _finding(
        "personal_data", "warning", frame.filter(text.str.contains(EMAIL) | text.str.contains(PHONE) | has_id)
    )


def is_taiwan_id(text: str) -> bool:
    """Whether the check digit of a Taiwanese identity number holds."""
    letter = _TAIWAN_ID_LETTERS.index(text[0]) + 10
    digits = [letter // 10, letter % 10, *map(int, text[1:])]
    return sum(d * w for d, w in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def near_duplicate(frame: pl.DataFrame) -> Iterator[Found]:
    from .near import near_duplicates

    unique = frame.unique("same", keep="first", maintain_order=True)
    partners = near_duplicates(unique["same"])
    if partners:
        rows = unique["row"]
        repeated = unique[list(partners)].with_columns(pl.Series("like", [rows[i] for i in partners.values()]))
        yield from _finding("near_duplicate", "info", repeated, like_row="like")


def mixed_language(frame: pl.DataFrame) -> Iterator[Found]:
    from .languages import strangers

    found, share = strangers(frame)
    if found.height:
        count, shown = max(1, round(share * frame.height)), examples(found, language="language")
        yield Found("mixed_language", "info", count, shown, found["row"].to_list())


CHECKS: tuple[Callable[[pl.DataFrame], Iterator[Found]], ...] = (
    too_short, too_long, exact_duplicate, near_duplicate, label_conflict, split_leakage, label_imbalance, rare_label,
    mixed_language, markup, control_characters, encoding, personal_data,
)  # fmt: skip
