"""The checks behind the validation report. Plain polars over the rows; each yields its findings or none."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from datasets_app.checks import languages
from datasets_app.reading.columns import Rows
from datasets_app.versions.canonical import SLICE, counts
from engine import resolve_base_model
from engine.config import SAMPLE_MODEL
from engine.data.near_duplicates import groups
from engine.data.token_counts import TokenCounter

SHORTEST, LONGEST = 3, 2000  # characters
FEWEST_ROWS = 10  # of a label; below, neither learning nor evaluation means anything
IMBALANCE = 5  # times the rows of the smallest label
EXAMPLES = 5
TOKEN_LIMIT = 128  # the usual data.max_length

_MARKUP = (
    r"(?i)</?(?:a|b|i|p|br|hr|em|li|ul|ol|div|img|span|font|table|td|tr|strong|script|style|h[1-6])\b[^<>]{0,300}>"
    r"|&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,6});"
)
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
_MOJIBAKE = r"\x{fffd}|Ã[\x{80}-\x{bf}]|â€|ï»¿|ï¿½|Â[\x{a0}-\x{bf}]|[ÃÂ][ƒ‚]|锟斤拷|烫烫"
_LATIN = r"[\x80-\u02ff\u0370-\u052f\u2018-\u203a\u20ac\u2122]"  # letters and signs that mojibake is made of
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


@dataclass
class Report:
    """The findings, worst first, and what was seen on the way."""

    found: list[Found]
    tokens: dict[int, int]  # {tokens of a text with the sample base model: rows}
    facts: pl.DataFrame  # of each row: row, label, same, group (see engine.data.near_duplicates) and a flag per check
    languages: dict[str, int]  # {language: rows of the sample}


Told = Callable[..., None]


def run(rows: Rows, told: Told = lambda stage, done=0, total=0: None) -> Report:
    """All checks. Texts are looked at in slices; what is compared across rows is a few numbers for each."""
    frame = rows.frame
    facts, tokens = _facts(frame, told)
    spoken = languages.told_of(frame)
    found = [f for check in CHECKS for f in check(Seen(frame, facts, spoken))]
    if rows.skipped:
        found.append(Found("empty_text", "warning", rows.skipped, rows.skipped_examples))
    order = {"error": 0, "warning": 1, "info": 2}
    lengths, amounts = np.unique(tokens, return_counts=True)
    tokens_by_length = dict(zip(lengths.tolist(), amounts.tolist(), strict=True))
    worst_first = sorted(found, key=lambda f: (order[f.severity], -f.count))
    return Report(worst_first, tokens_by_length, facts, counts(spoken["language"].drop_nulls()))


@dataclass(frozen=True)
class Seen:
    """All rows, and beside each: `same` (its text), `exact` (its text and label), `group`, and a flag for each check of one text alone."""

    frame: pl.DataFrame
    facts: pl.DataFrame
    spoken: pl.DataFrame  # the rows whose language was told

    def repeated(self, column: str) -> pl.DataFrame:
        """The rows whose value of this column others have too: few, so that comparing them takes little memory."""
        return self.facts.filter(pl.col(column).is_duplicated())

    def finding(self, code: str, severity: str, found: pl.DataFrame, **more: str) -> Iterator[Found]:
        """`found`: rows of the facts; `more` names further columns of it that the examples keep."""
        if found.height:
            rows = found["row"].to_list()
            yield Found(code, severity, found.height, self.examples(found, **more), rows)

    def examples(self, found: pl.DataFrame, **more: str) -> list[dict[str, Any]]:
        """The first rows as the report shows them."""
        shown = found.head(EXAMPLES).select("row", *{column for column in more.values() if column != "split"})
        cells = shown.join(self.frame, on="row", how="left", maintain_order="left")
        return [
            {"row": r["row"], "text": r["text"][:200], "label": r["label"], **{k: r[col] for k, col in more.items()}}
            for r in cells.iter_rows(named=True)
        ]


def _facts(frame: pl.DataFrame, told: Told) -> tuple[pl.DataFrame, np.ndarray]:
    counter = TokenCounter(resolve_base_model(SAMPLE_MODEL), SAMPLE_MODEL)
    parts, tokens = [], []
    for start in range(0, frame.height, SLICE):
        told("checking", start, frame.height)
        part = frame[start : start + SLICE]
        tokens.append(counter(part["text"]))
        parts.append(_facts_of(part).with_columns(pl.Series("over_token_limit", tokens[-1] > TOKEN_LIMIT)))
    facts = pl.concat(parts).with_columns(groups(frame["text"]))
    return facts, np.concatenate(tokens)


def _facts_of(part: pl.DataFrame) -> pl.DataFrame:
    text = pl.col("text")
    kept: list[str | pl.Expr] = [
        "row",
        pl.col("label").cast(pl.Categorical),
        *(["split"] if "split" in part.columns else []),
    ]
    facts = part.select(
        *kept,
        (text.hash() ^ pl.col("label").hash(1)).alias("exact"),
        (text.str.strip_chars().str.len_chars() < SHORTEST).alias("too_short"),
        (text.str.len_chars() > LONGEST).alias("too_long"),
        text.str.contains(CONTROL).alias("control_characters"),
    )
    return facts.with_columns(
        _where(part, text.str.contains_any(["<", "&"]), _has_markup).alias("markup"),
        _where(part, text.str.len_bytes() != text.str.len_chars(), _is_broken).alias("encoding"),
        _where(part, text.str.contains(r"@|\d.*\d.*\d.*\d.*\d.*\d.*\d"), _is_personal).alias("personal_data"),
    )


def _where(part: pl.DataFrame, likely: pl.Expr, sure: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`sure` of the rows that a quick look finds likely; the others are not."""
    rows = part.select(likely.alias("likely"))["likely"].fill_null(False).arg_true()
    found = np.zeros(part.height, dtype=bool)
    if rows.len():
        found[rows.to_numpy()] = sure(part["text"][rows]).fill_null(False).to_numpy()
    return pl.Series(found)


def _has_markup(texts: pl.Series) -> pl.Series:
    return texts.str.contains(_MARKUP)


def _is_broken(texts: pl.Series) -> pl.Series:
    from ftfy.badness import is_bad

    broken = texts.str.contains(_MOJIBAKE).to_numpy(writable=True)
    rows = np.flatnonzero(~broken & texts.str.contains(_LATIN).to_numpy())  # what ftfy looks at has such characters
    broken[rows] = [is_bad(text) for text in texts[rows]]
    return pl.Series(broken)


def _is_personal(texts: pl.Series) -> pl.Series:
    return texts.str.contains(EMAIL) | texts.str.contains(PHONE) | pl.Series(map(_has_id, texts), dtype=pl.Boolean)


def _has_id(text: str) -> bool:
    return any(map(is_taiwan_id, re.findall(TAIWAN_ID, text)))


def is_taiwan_id(text: str) -> bool:
    """Whether the check digit of a Taiwanese identity number holds."""
    letter = _TAIWAN_ID_LETTERS.index(text[0]) + 10
    digits = [letter // 10, letter % 10, *map(int, text[1:])]
    return sum(d * w for d, w in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def one_text(seen: Seen) -> Iterator[Found]:
    """What is wrong with a text alone."""
    for code, severity in TEXT_CODES.items():
        yield from seen.finding(code, severity, seen.facts.filter(code))


def exact_duplicate(seen: Seen) -> Iterator[Found]:
    first = pl.col("row").first().over("exact").alias("first")
    repeated = seen.repeated("exact").with_columns(first).filter(pl.col("row") != pl.col("first"))
    yield from seen.finding("exact_duplicate", "warning", repeated, same_as_row="first")


def near_duplicate(seen: Seen) -> Iterator[Found]:
    """Rows that nearly say what an earlier one of their group says; those that say the very same are told elsewhere."""
    first = [pl.col(name).first().over("group").alias(f"first_{name}") for name in ("row", "same")]
    repeated = seen.repeated("group").with_columns(first).filter(pl.col("same") != pl.col("first_same"))
    once = repeated.unique("same", keep="first", maintain_order=True)
    yield from seen.finding("near_duplicate", "info", once, like_row="first_row")


def label_conflict(seen: Seen) -> Iterator[Found]:
    kinds = pl.col("label").n_unique().over("same")
    yield from seen.finding("label_conflict", "warning", _grouped(seen.repeated("same").filter(kinds > 1)))


def split_leakage(seen: Seen) -> Iterator[Found]:
    """Texts, or near-duplicates of them, in more than one of the splits that were given."""
    if "split" in seen.facts.columns:
        kinds = pl.col("split").n_unique().over("group")
        leaked = _grouped(seen.repeated("group").filter(kinds > 1))
        yield from seen.finding("split_leakage", "error", leaked, split="split")


def _grouped(found: pl.DataFrame) -> pl.DataFrame:
    """Rows of one text side by side, in the order of their first ones."""
    return found.sort(pl.col("row").min().over("group"), "row")


def label_imbalance(seen: Seen) -> Iterator[Found]:
    labels = counts(seen.frame["label"])
    if max(labels.values()) >= IMBALANCE * min(labels.values()):
        shown = [{"label": label, "rows": n} for label, n in [*labels.items()][:EXAMPLES]]
        yield Found("label_imbalance", "warning", max(labels.values()), shown)


def rare_label(seen: Seen) -> Iterator[Found]:
    rare = {label: n for label, n in counts(seen.frame["label"]).items() if n < FEWEST_ROWS}
    if not rare:
        return
    frame = seen.frame.filter(pl.col("label").is_in([*rare]))
    firsts = {r["label"]: r for r in frame.unique("label", keep="first").iter_rows(named=True)}
    shown = [
        {"row": firsts[label]["row"], "text": firsts[label]["text"][:200], "label": label, "rows": n}
        for label, n in sorted(rare.items(), key=lambda item: item[1])[:EXAMPLES]
    ]
    severity = "error" if min(rare.values()) == 1 else "warning"
    yield Found("rare_label", severity, len(rare), shown, frame["row"].to_list())


def mixed_language(seen: Seen) -> Iterator[Found]:
    found, share = languages.strangers(seen.spoken)
    if found.height:
        readable = languages.readable(seen.frame).len()
        count = max(1, round(share * readable))
        shown = seen.examples(found.select("row", "language"), language="language")
        yield Found("mixed_language", "info", count, shown, found["row"].to_list())


TEXT_CODES = {
    "too_short": "warning", "too_long": "info", "markup": "info", "control_characters": "info", "encoding": "warning",
    "personal_data": "warning", "over_token_limit": "info",
}  # fmt: skip
CHECKS: tuple[Callable[[Seen], Iterator[Found]], ...] = (
    one_text, exact_duplicate, near_duplicate, label_conflict, split_leakage, label_imbalance, rare_label, mixed_language,
)  # fmt: skip
