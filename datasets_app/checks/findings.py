"""The checks behind the validation report: polars expressions over the rows. Each check yields its results, or none."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from datasets_app.checks import chats
from datasets_app.checks.checked_rows import EXAMPLES, CheckedRows, CheckResult, Severity
from datasets_app.checks.kinds import KIND_CHECKS
from datasets_app.checks.labels import are_scores, no_labels, similar_labels
from datasets_app.checks.languages import survey_languages
from datasets_app.progress import ReportProgress, ignore_progress
from datasets_app.reading.options import CHAT_KINDS
from datasets_app.reading.rows import count_labels, labels_of
from datasets_app.reading.stored_rows import Rows
from datasets_app.reading.table import INVISIBLE
from datasets_app.versions.canonical import SLICE, count_values, histogram
from engine import resolve_base_model
from engine.config_sections import SAMPLE_MODEL
from engine.data.near_duplicates import group_near_duplicates
from engine.data.token_counts import TokenCounter

SHORTEST = 3  # characters
LONGEST = 2000  # characters
FEWEST_ROWS = 10  # of a label; with fewer neither learning nor evaluation is meaningful
IMBALANCE = 5  # times the rows of the smallest label
MOST_LISTED = 50  # examples of a finding whose rows people look at one by one
MANY_NEAR_DUPLICATES = 0.1  # of the rows
TOKEN_LIMIT = 128  # the default of data.max_length
_WORST_FIRST: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}
TEXT_CODES: dict[str, Severity] = {  # the checks of a single text
    "too_short": "warning",
    "too_long": "info",
    "markup": "info",
    "control_characters": "info",
    "encoding": "warning",
    "personal_data": "warning",
    "over_token_limit": "info",
}

_LONG_ENOUGH = rf"(?s)[^{INVISIBLE}].{{{SHORTEST - 2},}}[^{INVISIBLE}]"
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
class Report:
    """The results of all checks, worst first, and the statistics that they needed."""

    results: list[CheckResult]
    tokens: dict[int, int]  # {tokens of a text with the sample base model: rows}
    facts: pl.DataFrame  # for each row: see `CheckedRows.facts`
    languages: dict[str, int]  # {language: rows of a sample}
    lengths: list[dict[str, Any]]  # see `canonical.histogram`


def run_checks(rows: Rows, report: ReportProgress = ignore_progress) -> Report:
    """Run all checks. Texts are checked in slices; comparisons across rows use a few numbers of each."""
    frame = chats.as_checks_see(rows.frame, rows.kind)
    is_chat = rows.kind in CHAT_KINDS
    code, limit = (chats.long_code(rows.kind), chats.TOKEN_LIMIT) if is_chat else ("over_token_limit", TOKEN_LIMIT)
    count_tokens = TokenCounter(resolve_base_model(SAMPLE_MODEL), SAMPLE_MODEL)
    parts = []
    token_counts = []
    for start in range(0, frame.height, SLICE):  # so that no intermediate column holds all rows
        report("checking", start, frame.height)
        part = frame[start : start + SLICE]
        token_counts.append(count_tokens(part["text"]))
        is_over_limit = pl.Series(code, token_counts[-1] > limit)
        parts.append(text_facts(part).with_columns(is_over_limit))
    compared = frame["text"]
    if "question" in frame.columns:  # what a conversation is about
        compared = frame["question"].alias("text")
    elif "text_pair" in frame.columns:
        compared = frame.select(pl.concat_str("text", "text_pair", separator="\n"))["text"]
    facts = pl.concat(parts).with_columns(group_near_duplicates(compared))
    if is_chat:
        facts = facts.with_columns(rows.frame["text"].hash().alias("exact"))
    survey = survey_languages(frame.with_columns(text="spoken") if is_chat else frame)

    checked = CheckedRows(frame, facts, survey, rows.kind)
    checks = PLAIN_TEXT_CHECKS if rows.kind == "text" else CHAT_CHECKS if is_chat else CHECKS
    results = [result for check in checks for result in check(checked)]
    results += chats.left_out(rows)
    broken_tags = facts.filter(pl.col("row").is_in(rows.broken_tags))
    results += checked.results("broken_tags", "warning", broken_tags)
    if rows.mismatched_tags:
        results.append(CheckResult("tags_do_not_fit", "warning", rows.mismatched_tags, rows.mismatched_examples))
    if rows.skipped:
        results.append(CheckResult("empty_text", "warning", rows.skipped, rows.skipped_examples))
    results.sort(key=lambda result: (_WORST_FIRST[result.severity], -result.count))
    lengths, amounts = np.unique(np.concatenate(token_counts), return_counts=True)
    return Report(
        results=results,
        tokens=dict(zip(lengths.tolist(), amounts.tolist(), strict=True)),
        facts=facts,
        languages=survey.counts,
        lengths=histogram(frame["text"]),
    )


def has_visible_text(column: str = "text") -> pl.Expr:
    """Return whether a text has a character that shows; one without counts as empty."""
    return pl.col(column).str.contains(rf"[^{INVISIBLE}]")


def text_facts(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the facts that need one row alone (see `CheckedRows`).

    The costly patterns run only on rows that a cheap one lets through.
    """
    text = pl.col("text")
    columns: list[str | pl.Expr] = ["row", pl.col("label").cast(pl.Categorical)]
    if "split" in rows.columns:
        columns.append("split")
    exact = text.hash() ^ pl.col("label").hash(1)
    if "text_pair" in rows.columns:
        exact = exact ^ pl.col("text_pair").hash(2)
    facts = rows.select(
        *columns,
        exact.alias("exact"),
        (~text.str.contains(_LONG_ENOUGH)).alias("too_short"),
        (text.str.len_chars() > LONGEST).alias("too_long"),
        text.str.contains(CONTROL).alias("control_characters"),
    )
    may_be_markup = text.str.contains_any(["<", "&"])
    is_not_ascii = text.str.len_bytes() != text.str.len_chars()
    may_be_personal = text.str.contains(r"@|\d.*\d.*\d.*\d.*\d.*\d.*\d")
    return facts.with_columns(
        _flag(rows, may_be_markup, lambda texts: texts.str.contains(_MARKUP)).alias("markup"),
        _flag(rows, is_not_ascii, is_garbled).alias("encoding"),
        _flag(rows, may_be_personal, has_personal_data).alias("personal_data"),
    )


def _flag(rows: pl.DataFrame, candidates: pl.Expr, is_hit: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Return a flag for each row: `is_hit` for the candidates, False for the others.

    `is_hit` gets the texts of the candidates and returns a flag for each; null counts as False.
    """
    at = rows.select(candidates.alias("candidate"))["candidate"].fill_null(False).arg_true()
    flags = np.zeros(rows.height, dtype=bool)
    if at.len():
        flags[at.to_numpy()] = is_hit(rows["text"][at]).fill_null(False).to_numpy()
    return pl.Series(flags)


def is_garbled(texts: pl.Series) -> pl.Series:
    """Return whether each text has characters of another encoding than the one that it was read in."""
    from ftfy.badness import is_bad  # compiles large patterns when imported

    garbled = texts.str.contains(_MOJIBAKE).to_numpy(writable=True)
    # ftfy is slow, and can find something only in texts with these characters.
    candidates = np.flatnonzero(~garbled & texts.str.contains(_LATIN).to_numpy())
    garbled[candidates] = [is_bad(text) for text in texts[candidates]]
    return pl.Series(garbled)


def has_personal_data(texts: pl.Series) -> pl.Series:
    """Return whether each text has an e-mail address, a phone number or a Taiwanese identity number."""
    has_email = texts.str.contains(EMAIL)
    has_phone = texts.str.contains(PHONE)
    has_id = [any(map(is_taiwan_id, re.findall(TAIWAN_ID, text))) for text in texts]
    return has_email | has_phone | pl.Series(has_id, dtype=pl.Boolean)


def is_taiwan_id(text: str) -> bool:
    """Return whether the check digit of a Taiwanese identity number is right; `text` matches TAIWAN_ID.

    The letter counts as two digits, and the weighted sum of all eleven digits is divisible by ten.
    """
    letter = _TAIWAN_ID_LETTERS.index(text[0]) + 10
    digits = [letter // 10, letter % 10, *map(int, text[1:])]
    weights = (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=True)) % 10 == 0


def check_single_texts(rows: CheckedRows) -> Iterator[CheckResult]:
    """Yield a result for each of TEXT_CODES, or of those of conversations."""
    for code, severity in (chats.text_codes(rows.kind) if rows.kind in CHAT_KINDS else TEXT_CODES).items():
        yield from rows.results(code, severity, rows.facts.filter(code))


def exact_duplicate(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find rows with the text and label of an earlier one."""
    first = pl.col("row").first().over("exact").alias("first")
    repeated = rows.repeated("exact").with_columns(first).filter(pl.col("row") != pl.col("first"))
    yield from rows.results("exact_duplicate", "warning", repeated, {"same_as_row": "first"})


def near_duplicate(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find texts that are nearly those of an earlier row; equal texts belong to other checks."""
    first = [pl.col(name).first().over("group").alias(f"first_{name}") for name in ("row", "same")]
    repeated = rows.repeated("group").with_columns(first).filter(pl.col("same") != pl.col("first_same"))
    unique = repeated.unique("same", keep="first", maintain_order=True)
    severity: Severity = "warning" if unique.height >= MANY_NEAR_DUPLICATES * rows.facts.height else "info"
    yield from rows.results("near_duplicate", severity, unique, {"like_row": "first_row"})


def label_conflict(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find rows with one text and several labels."""
    labels = pl.col("label").n_unique().over("same")
    conflicting = rows.repeated("same").filter(labels > 1)
    yield from rows.results("label_conflict", "warning", _grouped(conflicting))


def split_leakage(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find texts, or near-duplicates of them, in more than one of the splits that the file gives."""
    if "split" not in rows.facts.columns:  # our own splits keep near-duplicates together
        return
    splits = pl.col("split").n_unique().over("group")
    leaked = rows.repeated("group").filter(splits > 1)
    yield from rows.results("split_leakage", "error", _grouped(leaked), {"split": "split"})


def _grouped(facts: pl.DataFrame) -> pl.DataFrame:
    """Sort rows of one group side by side, the groups by their first row."""
    return facts.sort(pl.col("row").min().over("group"), "row")


def label_imbalance(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find that the largest label has many times the rows of the smallest."""
    labels = count_labels(rows.frame["label"], rows.kind)
    if not labels:  # scores
        return
    largest = max(labels.values())
    smallest = min(labels.values())
    if largest < IMBALANCE * smallest:
        return
    examples = [{"label": label, "rows": n} for label, n in [*labels.items()][:EXAMPLES]]
    yield CheckResult("label_imbalance", "warning", largest, examples)


def rare_label(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find labels with too few rows, the rarest first; a label with a single row is an error."""
    rare = {label: n for label, n in count_labels(rows.frame["label"], rows.kind).items() if n < FEWEST_ROWS}
    if not rare:
        return
    stored = [
        value for value in rows.frame["label"].unique() if not rare.keys().isdisjoint(labels_of(value, rows.kind))
    ]
    frame = rows.frame.filter(pl.col("label").is_in(stored))
    first_rows = {
        label: row
        for row in frame.unique("label", keep="first").sort("row", descending=True).iter_rows(named=True)
        for label in labels_of(row["label"], rows.kind)
    }
    examples = [
        {"row": first_rows[label]["row"], "text": first_rows[label]["text"][:200], "label": label, "rows": n}
        for label, n in sorted(rare.items(), key=lambda item: item[1])[:EXAMPLES]
    ]
    severity: Severity = "error" if min(rare.values()) == 1 else "warning"
    yield CheckResult("rare_label", severity, len(rare), examples, frame["row"].to_list())


def mixed_language(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find rows in another language than most. If there are very many, some are looked at, and the count is extrapolated."""
    others = rows.languages.others
    if others.height:
        examples = rows.examples(others, {"language": "language"}, most=MOST_LISTED)
        count = others.height * rows.languages.one_in
        yield CheckResult("mixed_language", "info", count, examples, others["row"].to_list())


def label_spelling(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find labels that look alike; each group is an example, with the spelling that most rows have as `label`."""
    if rows.kind != "labels":
        return
    labels = count_values(rows.frame["label"])
    groups = similar_labels(labels)
    if groups:
        examples = [
            {"label": group[0], "labels": group, "rows": sum(labels[label] for label in group)}
            for group in groups[:MOST_LISTED]
        ]
        other_spellings = [label for group in groups for label in group[1:]]
        yield CheckResult(
            "similar_labels", "warning", sum(map(len, groups)), examples, _rows_with(rows.frame, other_spellings)
        )


def no_label(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find labels such as NULL and N/A, that mean "no label"."""
    if rows.kind != "labels":
        return
    labels = count_values(rows.frame["label"])
    marks = no_labels(labels)
    if marks:
        numbers = _rows_with(rows.frame, marks)
        examples = [{"label": label, "rows": labels[label]} for label in marks]
        yield CheckResult("no_label", "warning", len(numbers), examples, numbers)


def scores_as_labels(rows: CheckedRows) -> Iterator[CheckResult]:
    """Find that the labels are scores: a classifier cannot know that 3.1 is near 3.2."""
    if rows.kind != "labels":
        return
    labels = count_values(rows.frame["label"])
    if are_scores(labels):
        examples = [{"label": label, "rows": n} for label, n in [*labels.items()][:EXAMPLES]]
        yield CheckResult("scores_as_labels", "warning", len(labels), examples)


def _rows_with(frame: pl.DataFrame, labels: list[str]) -> list[int]:
    return frame.filter(pl.col("label").is_in(labels))["row"].to_list()


CHECKS: tuple[Callable[[CheckedRows], Iterator[CheckResult]], ...] = (
    check_single_texts,
    exact_duplicate,
    near_duplicate,
    label_conflict,
    split_leakage,
    label_imbalance,
    rare_label,
    label_spelling,
    no_label,
    scores_as_labels,
    mixed_language,
    *KIND_CHECKS,
)
PLAIN_TEXT_CHECKS = (check_single_texts, exact_duplicate, near_duplicate, split_leakage, mixed_language)
CHAT_CHECKS = (check_single_texts, exact_duplicate, mixed_language, *chats.CHAT_CHECKS)
