"""Choose the columns that hold the text, the label and the split, and make the rows that are stored from them."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.reading.table import ROW, Table
from datasets_app.versions.canonical import SLICE
from engine.data.labelled_rows import SPLIT_NAMES
from web.errors import InvalidError

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
class ColumnChoice:
    """Names of a file's columns; None where there is none."""

    text: str | None
    label: str | None
    split: str | None


@dataclass
class Rows:
    """The rows to store (text, label, row and perhaps split), and those left out because text or label is empty."""

    frame: pl.DataFrame
    choice: ColumnChoice
    skipped: int = 0
    skipped_examples: list[dict[str, Any]] = field(default_factory=list)


def guess(table: Table) -> ColumnChoice:
    """Guess by name, then by content: the text has the longest cells, the label the fewest distinct values."""
    split = None
    for name in table.columns:
        if name.lower() in SPLIT_COLUMN_NAMES:
            values = table.frame[name].unique().str.strip_chars().str.to_lowercase()
            if set(values) <= set(SPLIT_NAMES):
                split = name
                break
    others = [c for c in table.columns if c != split]
    label = _by_name(others, LABEL_NAMES)

    candidates = table.frame.select([c for c in others if c != label])
    text = _by_name(candidates.columns, TEXT_NAMES)
    if text is None and candidates.width:
        means = candidates.head(5000).select(pl.all().str.len_chars().mean()).row(0)
        text = candidates.columns[max(range(candidates.width), key=lambda i: means[i] or 0)]

    candidates = table.frame.select([c for c in others if c != text])
    if label is None and candidates.width:
        counts = dict(zip(candidates.columns, candidates.select(pl.all().n_unique()).row(0), strict=True))
        most = min(100, max(2, candidates.height // 2))
        few = {column: count for column, count in counts.items() if 2 <= count <= most}
        label = min(few, key=lambda column: few[column], default=None)
    return ColumnChoice(text, label, split)


def _by_name(columns: list[str], names: tuple[str, ...]) -> str | None:
    """Return the column with one of the names, else one whose name contains it; short names must match whole."""
    lowered = {column.lower().strip(): column for column in reversed(columns)}
    for name in names:
        if name in lowered:
            return lowered[name]
    for name in names:
        if len(name) > 3 or not name.isascii():
            for column in columns:
                if name in column.lower():
                    return column
    return None


def choose_columns(table: Table, text_column: str | None, label_column: str | None) -> ColumnChoice:
    """Return the columns that the person named, else those guessed; raise InvalidError with the names that exist."""
    for column, field_name in ((label_column, "label_column"), (text_column, "text_column")):
        if column and column not in table.columns:
            raise _missing(table, field_name, _("There is no column “%(column)s”.") % {"column": column[:80]})
    guessed = guess(table)
    label = label_column or (guessed.label if guessed.label != text_column else None)
    text = text_column or (guessed.text if guessed.text != label else None)
    if not text:
        raise _missing(table, "text_column", _("No column looks like the text."))
    if not label:
        raise _missing(table, "label_column", _("No column looks like the label."))
    if text == label:
        raise InvalidError(_("Text and label are the same column. Choose two."), field="label_column")
    return ColumnChoice(text, label, guessed.split if guessed.split not in (text, label) else None)


def _missing(table: Table, field_name: str, problem: str) -> InvalidError:
    names = ", ".join(f"“{c}”" for c in table.columns[:30])
    message = _("%(what)s The columns are: %(names)s. Name the right one; nothing was stored.")
    return InvalidError(message % {"what": problem, "names": names}, field=field_name, columns=table.columns[:30])


def select_rows(table: Table, choice: ColumnChoice) -> Rows:
    """Return the rows to store; those without text or label are left out and counted.

    The chosen columns get their own names, one kind of line ending and one kind of split name.
    """
    assert choice.text and choice.label
    is_complete = (pl.col("text").str.strip_chars() != "") & (pl.col("label") != "")
    complete = []
    incomplete = []
    for cells in table.frame.iter_slices(SLICE):  # slice by slice, so that no column is in memory twice
        columns = [
            _clean(cells[choice.text]).alias("text"),
            _clean(cells[choice.label]).str.strip_chars().alias("label"),
            cells[ROW].alias("row"),
        ]
        if choice.split:
            split = cells[choice.split].str.strip_chars().str.to_lowercase().replace(SPLIT_NAMES)
            columns.append(split.alias("split"))
        rows = pl.DataFrame(columns)
        complete.append(rows.filter(is_complete))
        incomplete.append(rows.filter(~is_complete))
    skipped = pl.concat(incomplete)
    examples = [
        {"row": row["row"], "text": row["text"][:200], "label": row["label"][:80]}
        for row in skipped.head(5).iter_rows(named=True)
    ]
    return Rows(pl.concat(complete), choice, skipped.height, examples)


def _clean(cells: pl.Series) -> pl.Series:
    """Normalise line endings and replace NUL, which PostgreSQL refuses. A column without either is not copied."""
    if not cells.str.contains_any(["\r", "\x00"]).any():
        return cells
    return cells.str.replace_all(r"\r\n?", "\n").str.replace_all("\x00", "\ufffd", literal=True)


def refuse_untrainable(rows: Rows) -> None:
    """Raise InvalidError if no model can be trained on the rows: there are none, or one label, or far too many labels."""
    if rows.frame.is_empty():
        message = _("No row has both a text and a label. Nothing was stored. Check that the right columns are chosen.")
        raise InvalidError(message, field="text_column")
    labels = rows.frame["label"].n_unique()
    if labels == 1:
        message = _("Every row has the same label, “%(label)s”. Training needs at least two. Nothing was stored.")
        raise InvalidError(message % {"label": rows.frame["label"][0][:80]}, field="label_column")
    if labels > MOST_LABELS:
        message = _(
            "The column “%(column)s” has %(count)s different values; at most %(most)s labels are supported. "
            "Nothing was stored. Choose another label column."
        )
        facts = {"column": rows.choice.label, "count": labels, "most": MOST_LABELS}
        raise InvalidError(message % facts, field="label_column")
