"""Which columns hold the text, the label and the split, and the rows that training gets from them."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.reading.table import ROW, Table
from datasets_app.versions.canonical import SLICE
from engine.data.splits import SPLIT_NAMES
from web.errors import Invalid

TEXT_NAMES = (
    *("text", "sentence", "comment", "review", "tweet", "content", "message", "body", "post", "document"),
    *("utterance", "question", "headline", "title", "文本", "文字", "內容", "内容", "評論", "评论", "留言", "句子"),
)
LABEL_NAMES = (
    *("label", "labels", "sentiment", "class", "mood", "category", "target", "emotion", "intent", "topic", "polarity"),
    *("tag", "rating", "stars", "score", "y", "標籤", "标签", "類別", "类别", "情緒", "情绪", "情感", "分類", "分类"),
)
SPLIT_COLUMN_NAMES = ["split", "subset", "partition", "fold", "set"]
MOST_LABELS = 200


@dataclass(frozen=True)
class Chosen:
    text: str | None
    label: str | None
    split: str | None


@dataclass
class Rows:
    """What will be stored: text, label, row and perhaps split; and what was left out, with the first few."""

    frame: pl.DataFrame
    chosen: Chosen
    skipped: int = 0
    skipped_examples: list[dict[str, Any]] = field(default_factory=list)


def guess(table: Table) -> Chosen:
    """By name, then by shape: the longest strings are the text, the fewest distinct values the label."""
    split = next((c for c in table.columns if c.lower() in SPLIT_COLUMN_NAMES and _is_split(table.frame[c])), None)
    rest = [c for c in table.columns if c != split]
    label = _by_name(rest, LABEL_NAMES)
    text = _by_name([c for c in rest if c != label], TEXT_NAMES)
    text = text or _longest(table.frame.select([c for c in rest if c != label]))
    return Chosen(text, label or _fewest_values(table.frame.select([c for c in rest if c != text])), split)


def _by_name(columns: list[str], names: tuple[str, ...]) -> str | None:
    lowered = {c.lower().strip(): c for c in reversed(columns)}
    exact = next((lowered[n] for n in names if n in lowered), None)
    return exact or next((c for n in names if len(n) > 3 or not n.isascii() for c in columns if n in c.lower()), None)


def _longest(frame: pl.DataFrame) -> str | None:
    if not frame.width:
        return None
    means = frame.head(5000).select(pl.all().str.len_chars().mean()).row(0)
    return frame.columns[max(range(frame.width), key=lambda i: means[i] or 0)]


def _fewest_values(frame: pl.DataFrame) -> str | None:
    if not frame.width:
        return None
    counts = dict(zip(frame.columns, frame.select(pl.all().n_unique()).row(0), strict=True))
    few = {c: n for c, n in counts.items() if 2 <= n <= min(100, max(2, frame.height // 2))}
    return min(few, key=lambda c: few[c]) if few else None


def _is_split(column: pl.Series) -> bool:
    return set(column.unique().str.strip_chars().str.to_lowercase()) <= set(SPLIT_NAMES)


def choose(table: Table, text_column: str | None, label_column: str | None) -> Chosen:
    """What the person named, else what was guessed; Invalid names the columns that exist."""
    guessed = guess(table)
    label = _existing(table, label_column, "label_column") or (guessed.label if guessed.label != text_column else None)
    text = _existing(table, text_column, "text_column") or (guessed.text if guessed.text != label else None)
    if not text:
        raise _missing(table, "text_column", _("No column looks like the text."))
    if not label:
        raise _missing(table, "label_column", _("No column looks like the label."))
    if text == label:
        raise Invalid(_("Text and label are the same column. Choose two."), field="label_column")
    return Chosen(text, label, guessed.split if guessed.split not in (text, label) else None)


def _existing(table: Table, column: str | None, field_name: str) -> str | None:
    if column and column not in table.columns:
        raise _missing(table, field_name, _("There is no column “%(column)s”.") % {"column": column[:80]})
    return column or None


def _missing(table: Table, field_name: str, what: str) -> Invalid:
    names = ", ".join(f"“{c}”" for c in table.columns[:30])
    message = _("%(what)s The columns are: %(names)s. Name the right one; nothing was stored.")
    return Invalid(message % {"what": what, "names": names}, field=field_name, columns=table.columns[:30])


def rows_of(table: Table, chosen: Chosen) -> Rows:
    """The rows to train on. Those without text or label are left out and counted."""
    good = (pl.col("text").str.strip_chars() != "") & (pl.col("label") != "")
    kept, left_out = [], []
    for part in table.frame.iter_slices(SLICE):  # slice by slice, so that no column is there twice
        tidy = _named(part, chosen)
        kept.append(tidy.filter(good))
        left_out.append(tidy.filter(~good))
    skipped = pl.concat(left_out)
    return Rows(pl.concat(kept), chosen, skipped.height, _brief(skipped.head(5)))


def _named(part: pl.DataFrame, chosen: Chosen) -> pl.DataFrame:
    label = _tidy(part, chosen.label).str.strip_chars().alias("label")
    named = [_tidy(part, chosen.text).alias("text"), label, part[ROW].alias("row")]
    if chosen.split:
        named.append(part[chosen.split].str.strip_chars().str.to_lowercase().replace(SPLIT_NAMES).alias("split"))
    return pl.DataFrame(named)


def _tidy(frame: pl.DataFrame, column: str | None) -> pl.Series:
    """One kind of line ending everywhere, and no NUL, which PostgreSQL refuses. What has neither is not copied."""
    cells = frame[column or ""]
    if not cells.str.contains_any(["\r", "\x00"]).any():
        return cells
    return cells.str.replace_all(r"\r\n?", "\n").str.replace_all("\x00", "\ufffd", literal=True)


def _brief(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [{"row": r["row"], "text": r["text"][:200], "label": r["label"][:80]} for r in frame.iter_rows(named=True)]


def refuse_untrainable(rows: Rows) -> None:
    """Invalid where no training can come of it: no rows, one label, or labels that are no labels."""
    labels = rows.frame["label"].n_unique()
    if rows.frame.is_empty():
        message = _("No row has both a text and a label. Nothing was stored; are these the right columns?")
        raise Invalid(message, field="text_column")
    if labels == 1:
        message = _("Every row has the same label, “%(label)s”. A training needs at least two. Nothing was stored.")
        raise Invalid(message % {"label": rows.frame["label"][0][:80]}, field="label_column")
    if labels > MOST_LABELS:
        message = _(
            "“%(column)s” has %(count)s different values, more than the %(most)s labels that can be learnt. "
            "Nothing was stored; choose another label column."
        )
        facts = {"column": rows.chosen.label, "count": labels, "most": MOST_LABELS}
        raise Invalid(message % facts, field="label_column")
