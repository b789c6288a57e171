"""Make the rows to store: text, label and split of each record, and a count of what was left out and why."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.checks.labels import are_scores, similar_labels
from datasets_app.reading.column_profiles import YES
from datasets_app.reading.columns import MOST_LABELS, ColumnChoice
from datasets_app.reading.conversation_rows import refuse_no_conversations, select_conversations
from datasets_app.reading.options import CHAT_KINDS
from datasets_app.reading.stored_rows import Rows, is_invisible
from datasets_app.reading.table import ROW, Table, cell
from datasets_app.versions.canonical import SLICE
from web.errors import InvalidError

_NUMBER = re.compile(r"\s*[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?\s*")
_WHOLE = re.compile(r"\s*[-+]?\d+\.0+\s*")
_PYTHON_STRING = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")
_PYTHON_LIST = re.compile(r"""\[\s*(?:(?:'[^'\\]*'|"[^"\\]*")(?:\s*,\s*|\s*))*+\]""")
_SEPARATORS = ",;|"  # of several labels in one cell
LEFT_OUT = ("no_text", "no_label", "several_labels", "not_a_number", "other_split")


@dataclass(frozen=True)
class Labels:
    """What the labels of a table are, and how each cell of the label column is stored.

    A stored label is a string; several labels of a row are a JSON list of strings, spans one of {start, end, label}. An empty
    string means that there is none, and the reasons in LEFT_OUT that the row has to be left out.
    """

    kind: str
    cells: pl.Series
    notes: list[dict[str, Any]] = field(default_factory=list)


def select_rows(table: Table, choice: ColumnChoice) -> Rows:
    """Return the rows to store, with one kind of line ending and of split name; those left out are counted."""
    if choice.kind in CHAT_KINDS:
        return select_conversations(table, choice)
    labels = read_labels(table, choice)
    if choice.merge_labels and labels.kind == "labels":
        labels = merge_spellings(labels)
    frame = table.frame.with_columns(labels.cells.alias("\x00label"))
    kept = []
    left_out: dict[str, int] = {}
    examples: list[dict[str, Any]] = []
    for cells in frame.iter_slices(SLICE):  # slice by slice, so that no column is in memory twice
        rows = _columns_to_store(cells, choice)
        reason = _reasons(rows)
        rows = rows.with_columns(reason.alias("reason"))
        kept.append(rows.filter(pl.col("reason") == "").drop("reason"))
        without = rows.filter(pl.col("reason") != "")
        for name, count in without["reason"].value_counts().iter_rows():
            left_out[name] = left_out.get(name, 0) + count
        for row in without.filter(pl.col("reason").is_in(["no_text", "no_label"])).head(5).iter_rows(named=True):
            if len(examples) < 5:
                label = "" if row["label"] in LEFT_OUT else row["label"][:80]
                examples.append({"row": row["row"], "text": row["text"][:200], "label": label})
    rows_read = frame.height + sum(table.left_out.values())
    selected = Rows(pl.concat(kept), choice, labels.kind, rows_read, table.left_out | left_out, examples, labels.notes)
    if labels.kind == "spans":
        selected.broken_tags = table.broken_tags
        selected.mismatched_tags = table.left_out.get("tags_do_not_fit", 0)
        selected.mismatched_examples = table.left_out_examples
    return selected


def _columns_to_store(cells: pl.DataFrame, choice: ColumnChoice) -> pl.DataFrame:
    texts = [_clean(cells[name]) for name in choice.texts]
    text = texts[0]
    if len(texts) > 1:
        joined = pl.concat_list(*(s.alias(str(i)).str.strip_chars() for i, s in enumerate(texts)))
        text = pl.select(joined.list.eval(pl.element().filter(pl.element() != "")).list.join("\n")).to_series()
    columns = [text.alias("text"), cells["\x00label"].alias("label"), cells[ROW].alias("row")]
    if choice.split:
        values = cells[choice.split].str.strip_chars().str.to_lowercase()
        columns.append(values.replace_strict(choice.split_values, default="").alias("split"))
    if choice.pair:
        columns.append(_clean(cells[choice.pair]).alias("text_pair"))
    return pl.DataFrame(columns)


def _reasons(rows: pl.DataFrame) -> pl.Series:
    """Return why each row is left out; an empty string for those that are stored."""
    is_empty = is_invisible(rows["text"])
    if "text_pair" in rows.columns:
        is_empty = is_empty | is_invisible(rows["text_pair"])
    label = pl.col("label")
    is_in_no_split = pl.col("split") == "" if "split" in rows.columns else pl.lit(False)
    reason = (
        pl.when(is_empty)
        .then(pl.lit("no_text"))
        .when(label == "")
        .then(pl.lit("no_label"))
        .when(is_in_no_split)
        .then(pl.lit("other_split"))
        .when(label.str.starts_with("\x00"))
        .then(label.str.slice(1))
        .otherwise(pl.lit(""))
    )
    return rows.select(reason.alias("reason"))["reason"]


def _clean(cells: pl.Series) -> pl.Series:
    """Normalise line endings and replace NUL, which PostgreSQL refuses. A column without either is not copied."""
    if not cells.str.contains_any(["\r", "\x00"]).any():
        return cells
    return cells.str.replace_all(r"\r\n?", "\n").str.replace_all("\x00", "\ufffd", literal=True)


# --- labels ----------------------------------------------------------------------------------------------------------


def read_labels(table: Table, choice: ColumnChoice) -> Labels:
    """Return what the labels are, by the person's choice or by their content, and how each cell is stored."""
    if len(choice.labels) > 1:
        return labels_of_flags(table, choice)
    assert choice.label
    cells = _clean(table.frame[choice.label]).str.strip_chars()
    if (table.labels_kind == "spans" and choice.label == table.label) or choice.kind == "spans":
        return Labels("spans", _map(cells, _stored_spans))
    if choice.label in table.lists:
        return labels_of_lists(cells, choice.kind)
    values = cells.unique().to_list()
    # Lists as this platform writes them to CSV and JSON lines.
    if choice.kind in ("", "multi_label") and (lists := _lists_of(values)):
        if not choice.kind and all(isinstance(part, dict) for parts in lists for part in parts):
            return Labels("spans", _map(cells, _stored_spans))
        return labels_of_lists(cells, choice.kind)
    if choice.kind == "multi_label" or (not choice.kind and hold_several(values)):
        parts = {
            value: [part.strip() for part in re.split(f"[{_SEPARATORS}]", value) if part.strip()] for value in values
        }
        stored = _map(cells, lambda value: _as_json(parts[value]) if value else "")
        return Labels("multi_label", stored, [{"code": "several_in_cell", "column": choice.label}])
    if choice.kind == "scores" or (not choice.kind and are_scores(values)):
        return Labels("scores", _map(cells, _stored_score))
    is_whole = [bool(_WHOLE.fullmatch(value)) for value in values]
    others = [value for value, whole in zip(values, is_whole, strict=True) if value and not whole]
    if any(is_whole) and all(re.fullmatch(r"[-+]?\d+", value) for value in others):
        note = {"code": "whole_numbers", "column": choice.label}
        return Labels("labels", _map(cells, lambda value: value.partition(".")[0]), [note])
    return Labels("labels", cells)


def merge_spellings(labels: Labels) -> Labels:
    """Give labels that look alike the spelling that most rows have."""
    groups = similar_labels(count_labels(labels.cells.filter(labels.cells != ""), labels.kind))
    spellings = {label: group[0] for group in groups for label in group[1:]}
    note = {"code": "labels_merged", "count": len(spellings), "labels": [group[0] for group in groups[:10]]}
    return Labels(labels.kind, labels.cells.replace(spellings), [*labels.notes, *([note] if spellings else [])])


def _map(cells: pl.Series, change: Callable[[str], str]) -> pl.Series:
    """Return the cells changed; each different cell is changed once."""
    return cells.replace_strict({value: change(value) for value in cells.unique().to_list()}, return_dtype=pl.String)


def _as_json(labels: Sequence[str]) -> str:
    return json.dumps(sorted(dict.fromkeys(labels)), ensure_ascii=False)


def labels_of_flags(table: Table, choice: ColumnChoice) -> Labels:
    """Return the labels of columns of yes and no: one each if every row has exactly one yes."""
    flags = [table.frame[name].str.strip_chars().str.to_lowercase().is_in([*YES]) for name in choice.labels]
    counts = pl.select(
        pl.sum_horizontal(*(flag.cast(pl.UInt32).alias(str(i)) for i, flag in enumerate(flags)))
    ).to_series()
    names = pl.DataFrame([flag.alias(str(i)) for i, flag in enumerate(flags)]).select(
        pl.concat_list(pl.when(pl.col(str(i))).then(pl.lit(name)) for i, name in enumerate(choice.labels))
        .list.drop_nulls()
        .alias("names")
    )["names"]
    is_one_each = bool((counts == 1).all())
    if choice.kind == "labels" or (not choice.kind and is_one_each):
        one = names.list.join("\n")
        stored = pl.select(
            pl.when(counts == 1).then(one).when(counts > 1).then(pl.lit("\x00several_labels")).otherwise(pl.lit(""))
        ).to_series()
        return Labels("labels", stored, [{"code": "flag_columns", "columns": [*choice.labels]}])
    joined = names.list.join("\x1f")
    stored = _map(joined, lambda value: _as_json(value.split("\x1f") if value else []))
    return Labels("multi_label", stored, [{"code": "several_labels", "columns": [*choice.labels]}])


def labels_of_lists(cells: pl.Series, kind: str) -> Labels:
    """Return the labels of a column of lists: one each if no list has more than one."""
    lists = {value: _parse_list(value) for value in cells.unique().to_list()}
    most = max(map(len, lists.values()), default=0)
    if kind == "labels" or (not kind and most <= 1):

        def one(value: str) -> str:
            labels = lists[value]
            return "" if not labels else labels[0] if len(labels) == 1 else "\x00several_labels"

        return Labels("labels", _map(cells, one))
    stored = _map(cells, lambda value: _as_json(lists[value]) if value else "")
    return Labels("multi_label", stored, [{"code": "several_labels", "columns": []}])


def _lists_of(values: Sequence[str]) -> list[list[Any]]:
    """Return the lists that all cells hold as JSON; nothing if one of them is no list."""
    lists = []
    for value in filter(None, values):
        parsed = _load_list(value)
        if not isinstance(parsed, list):
            return []
        lists.append(parsed)
    return lists if any(lists) else []


def _load_list(value: str) -> list[Any] | None:
    """Return the list in a cell: as JSON, or of strings as Python and numpy write it, ['a', 'b'] and ['a' 'b']."""
    if not (value.startswith("[") and value.endswith("]")):
        return None
    try:
        parsed = json.loads(value)
        return parsed if isinstance(parsed, list) else None
    except (ValueError, RecursionError):
        pass
    if not _PYTHON_LIST.fullmatch(value):
        return None
    return [single or double for single, double in _PYTHON_STRING.findall(value)]


def _parse_list(value: str) -> list[str]:
    """Return the labels of a cell that is a JSON list, or a plain value."""
    parsed = _load_list(value)
    if not isinstance(parsed, list):
        return [value] if value else []
    return [label for part in parsed if (label := cell(part).strip())]


def hold_several(values: Sequence[str]) -> bool:
    """Return whether cells hold several labels, as in "4,27": far fewer parts than combinations, most of them also alone."""
    combined = [value for value in values if any(separator in value for separator in _SEPARATORS)]
    if not combined or len(values) - len(combined) < 2:
        return False
    parts = {part.strip() for value in combined for part in re.split(f"[{_SEPARATORS}]", value)}
    alone = {value for value in values if value not in combined}
    share = 1.0 if len(combined) == 1 else 0.6
    return all(0 < len(part) <= 40 for part in parts) and len(parts & alone) >= len(parts) * share


def _stored_score(value: str) -> str:
    """Return a number as Python writes it; a reason to leave the row out for anything else."""
    if not value:
        return ""
    if not _NUMBER.fullmatch(value):
        return "\x00not_a_number"
    number = float(value.replace(",", "."))
    return str(int(number)) if number.is_integer() else repr(number)


def _stored_spans(value: str) -> str:
    if not value:
        return ""
    try:
        spans = json.loads(value)
        listed = [{"start": int(s["start"]), "end": int(s["end"]), "label": str(s["label"])} for s in spans]
    except (ValueError, KeyError, TypeError):
        return "\x00no_label"
    return json.dumps(sorted(listed, key=lambda s: (s["start"], s["end"], s["label"])), ensure_ascii=False)


def labels_of(label: str, kind: str) -> list[str]:
    """Return the names of the labels in a stored label."""
    if kind in ("multi_label", "spans"):
        listed = json.loads(label)
        return [part["label"] if kind == "spans" else part for part in listed]
    return [] if kind in ("scores", *CHAT_KINDS) else [label]


def rename_in(stored: str, old: Sequence[str], new: str, kind: str) -> str:
    """Return a stored label with some names of labels replaced."""
    if kind == "multi_label":
        return _as_json([new if label in old else label for label in json.loads(stored)])
    if kind == "spans":
        spans = [{**span, "label": new if span["label"] in old else span["label"]} for span in json.loads(stored)]
        return json.dumps(spans, ensure_ascii=False)
    return new if stored in old else stored


def parse_label(typed: str, kind: str) -> str:
    """Return what a person typed as it is stored: a label, a number, or a JSON list; names may also have commas between."""
    if kind == "multi_label":
        names = [name.strip() for name in typed.split(",") if name.strip()]
        return _as_json(_parse_list(typed) if typed.startswith("[") else names)
    stored = _stored_score(typed) if kind == "scores" else _stored_spans(typed) if kind == "spans" else typed
    if not stored or stored.startswith("\x00"):
        raise InvalidError(
            _("“%(label)s” is no label of this kind of data.") % {"label": typed[:80]}, field="rows.label"
        )
    return stored


def count_labels(labels: pl.Series, kind: str) -> dict[str, int]:
    """Return {label: rows}, the most frequent first; empty for scores."""
    counts: dict[str, int] = {}
    for stored, rows in labels.value_counts().iter_rows():
        for label in dict.fromkeys(labels_of(stored, kind)):
            counts[label] = counts.get(label, 0) + rows
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def refuse_untrainable(rows: Rows) -> None:
    """Raise InvalidError if no model can be trained on the rows: there are none, or one label, or far too many labels."""
    if rows.kind in CHAT_KINDS:
        return refuse_no_conversations(rows)
    if rows.frame.is_empty():
        message = _("No row has both a text and a label. Nothing was stored. Check that the right columns are chosen.")
        raise InvalidError(message, field="text_column")
    if rows.kind == "scores":
        count = rows.frame["label"].n_unique()
    else:
        names = count_labels(rows.frame["label"], rows.kind)
        count = len(names)
    if count < (1 if rows.kind == "spans" else 2):
        if rows.kind == "labels":
            message = _(
                "Every row has the same label, “%(label)s”. Training needs at least two. Nothing was stored.%(left_out)s"
            )
            left_out = ""  # may explain why a label is missing
            if rows.skipped:
                left_out = " " + _("%(count)s rows without text or label were left out.") % {"count": rows.skipped}
            facts = {"label": rows.frame["label"][0][:80], "left_out": left_out}
            raise InvalidError(message % facts, field="label_column")
        message = _(
            "The rows have too few different labels to learn from. Nothing was stored. Choose another label column."
        )
        raise InvalidError(message, field="label_column")
    if rows.kind != "scores" and count > MOST_LABELS:
        message = _(
            "The column “%(column)s” has %(count)s different values; at most %(most)s labels are supported. "
            "Nothing was stored. Choose another label column."
        )
        facts = {"column": rows.choice.label, "count": count, "most": MOST_LABELS}
        raise InvalidError(message % facts, field="label_column")
