"""Read JSON documents, JSON lines and objects one behind another into a table of strings, in whatever shape the records stand."""

import io
import json
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.reading import exports
from datasets_app.reading.archives import CHUNK, head_of, refuse_cells
from datasets_app.reading.characters import clean
from datasets_app.reading.delimited import LONGEST_LINE, line_too_long
from datasets_app.reading.exports import TAG_FAULTS, Export, Item, LeftOut
from datasets_app.reading.names import LABEL_NAMES, TEXT_NAMES
from datasets_app.reading.splits import split_of_name
from datasets_app.reading.table import (
    HEAD_ROWS,
    MOST_COLUMNS,
    ROW,
    BrokenRecords,
    ReadScope,
    Table,
    cell,
    mostly_broken,
    table_of,
    unique_names,
)
from web.errors import InvalidError

_WHITE_SPACE = frozenset(" \t\r\n")  # of JSON
_PEEKED = 50  # records by which an export is recognised
_MOST_EXAMPLES = 5
_NAMES_OF_ROWS = ("rows", "data", "examples", "records", "items", "results")
_NAMES_OF_INTENTS = ("tag", "intent", "name", "label")
_TEXTS_OF_INTENTS = ("patterns", "examples", "utterances", "texts", "text")
_DEEPEST = 4  # levels of objects whose fields become columns


def read_json(text: Path, kind: str, scope: ReadScope, limit: int) -> Table:
    """Read a JSON document, JSON lines, or objects one behind another, whatever the file is called."""
    head = head_of(text).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    is_list = head[:1] == "[" and (kind == "json" or re.match(r"\[\s*\{", head))
    values = _values_in_a_row(head)
    with open(text, encoding="utf-8-sig", errors="replace", newline="\n") as file:
        try:
            if is_list:
                return table_of_items(_JsonStream(file).list_items(), "json", scope, limit)
            if values == "anywhere":
                return table_of_items(_JsonStream(file).objects(), "jsonl", scope, limit)
            if kind == "json" and values != "lines":
                return table_of_items(document_items(json.load(file)), "json", scope, limit)
        except RecursionError:
            raise InvalidError(_("This JSON file is nested too deeply. Nothing was stored."), field="file") from None
        except ValueError as error:
            if is_list or "\n{" not in head:
                message = _("This is not valid JSON: %(why)s. Nothing was stored.")
                raise InvalidError(message % {"why": str(error)[:120]}, field="file") from None
            file.seek(0)
        return table_of_items(items_of_lines(file), "jsonl", scope, limit)


def _values_in_a_row(head: str) -> str:
    """Return how the first two values of a file follow each other: in lines, anywhere, or not at all."""
    try:
        _value, end = json.JSONDecoder().raw_decode(head)
    except (ValueError, RecursionError):
        return ""
    between, brace, _rest = head[end:].partition("{")
    if not brace or between.strip(" \t\r\n,"):
        return ""
    return "lines" if "\n" in between and "\n" not in head[:end] else "anywhere"


class _JsonStream:
    """Parses a JSON document of which only a piece is in memory."""

    def __init__(self, document: io.TextIOWrapper) -> None:
        self.document = document
        self.text = ""
        self.at = 0  # where in `text` parsing goes on
        self.decode = json.JSONDecoder().raw_decode

    def list_items(self) -> Iterator[Any]:
        """Yield the items of a JSON list one by one. Raises ValueError if the document is not a valid list."""
        self.expect("[")
        if self.peek() != "]":
            yield self.parse_value()
        while self.expect(",]") == ",":
            yield self.parse_value()
        if self.peek():
            raise ValueError("there is something behind the list")

    def objects(self) -> Iterator[Any]:
        """Yield values that stand one behind another, with commas or white space between them."""
        while self.peek():
            yield self.parse_value()
            if self.peek() == ",":
                self.expect(",")

    def expect(self, characters: str) -> str:
        """Consume and return the next character; raise ValueError if it is not one of these."""
        character = self.peek()
        if not character or character not in characters:
            raise ValueError(f"“{characters[0]}” is missing before “{self.text[self.at : self.at + 20]}”")
        self.at += 1
        return character

    def peek(self) -> str:
        """Return the next character that is not white space; an empty string at the end."""
        while True:
            while self.text[self.at : self.at + 1] in _WHITE_SPACE:
                self.at += 1
            if self.at < len(self.text) or not self.read_more():
                return self.text[self.at : self.at + 1]

    def parse_value(self) -> Any:
        """Consume and return the next value; raise ValueError if it is not valid."""
        self.peek()
        while True:
            problem: ValueError | None = None
            try:
                value, end = self.decode(self.text, self.at)
            except ValueError as error:
                problem = error
                end = len(self.text)
            if end < len(self.text):
                self.at = end
                return value
            if not self.read_more():  # a value that ends with the piece, even a number, may go on in the next one
                if problem:
                    raise problem
                self.at = len(self.text)
                return value

    def read_more(self) -> bool:
        """Read the next piece, twice as large as the unparsed text, so that a long value is not parsed many times."""
        piece = self.document.read(max(CHUNK, len(self.text) - self.at))
        self.text = self.text[self.at :] + piece
        self.at = 0
        return bool(piece)


def items_of_lines(lines: io.TextIOWrapper) -> Iterator[Any]:
    """Yield the values of JSON lines; the text of a line that cannot be parsed, which is no record either."""
    while line := lines.readline(LONGEST_LINE):
        if not line.strip():
            continue
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            raise line_too_long()
        try:
            value = json.loads(line.rstrip().removesuffix(","))
        except (ValueError, RecursionError):
            value = line.rstrip()
        yield value


# --- where the records stand in a document ---------------------------------------------------------------------------


def document_items(document: Any) -> Iterable[Any]:
    """Return the records of a document that is an object; see the branches for the shapes."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict) or not document:
        raise _unknown_shape()
    if isinstance(rasa := document.get("rasa_nlu_data"), dict):
        return [{"text": e.get("text"), "intent": e.get("intent")} for e in rasa.get("common_examples") or []]
    if isinstance(intents := document.get("intents"), list):
        return items_of_intents(intents)
    if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):  # pandas, orient="split"
        return [dict(zip(map(str, document["columns"]), row, strict=False)) for row in document["data"]]
    values = [*document.values()]
    if all(isinstance(value, list) for value in values) and all(split_of_name(name) for name in document):
        return items_by_split(document)
    if all(isinstance(value, list) and value and _is_snips(value[0]) for value in values):
        # {intent: [{"data": [{"text": "play "}, {"text": "jazz", "entity": "genre"}]}]}
        return (
            {"text": "".join(str(part.get("text", "")) for part in utterance.get("data") or []), "intent": intent}
            for intent, utterances in document.items()
            for utterance in utterances
        )
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1:  # {"version": 1, "data": [{…}, …]}
        return lists[0]
    if named := [document[name] for name in _NAMES_OF_ROWS if document.get(name) in lists]:  # beside a list of features
        return [
            item["row"] if isinstance(item.get("row"), dict) else item for item in named[0] if isinstance(item, dict)
        ]
    if all(isinstance(value, dict) and value for value in values):
        return items_of_objects(document)
    if all(isinstance(value, list) for value in values):
        is_named = any(name.lower() in (*TEXT_NAMES, *LABEL_NAMES) for name in document)
        differ = len({len(texts) for texts in values}) > 1
        if differ and not is_named and all(isinstance(text, str) for texts in values for text in texts):
            # {label: [text, …]}: columns would be of one length, or called text or label
            return ({"text": text, "label": label} for label, texts in document.items() for text in texts)
        return items_of_columns(document)
    if all(isinstance(value, str) for value in values) and 2 <= len({*values}) <= len(values) / 2:
        return [{"text": text, "label": label} for text, label in document.items()]
    raise _unknown_shape()


def _unknown_shape() -> InvalidError:
    message = _(
        "This JSON file is neither a list of objects nor an object of columns, of splits or of rows. Nothing was stored."
    )
    return InvalidError(message, field="file")


def items_by_split(document: dict[str, list[Any]]) -> Iterator[Any]:
    """Yield the records of {"train": […], "test": […]}; `oos_train` is a part of train."""
    for name, rows in document.items():
        for row in rows:
            fields = _with_numbers(row)
            yield {**fields, "split": split_of_name(name)} if isinstance(fields, dict) else fields


def items_of_intents(intents: list[Any]) -> Iterator[Any]:
    """Yield the records of [{"tag": label, "patterns": [text, …], "responses": […]}], as tutorials of chat bots have them."""
    for intent in intents:
        if not isinstance(intent, dict):
            yield intent  # counted as broken
            continue
        label = next((intent[key] for key in _NAMES_OF_INTENTS if key in intent), None)
        texts: list[Any] = next((intent[key] for key in _TEXTS_OF_INTENTS if isinstance(intent.get(key), list)), [])
        yield from ({"text": text, "intent": label} for text in texts)


def _is_snips(item: Any) -> bool:
    parts = item.get("data") if isinstance(item, dict) else None
    return isinstance(parts, list) and bool(parts) and all(isinstance(p, dict) and "text" in p for p in parts)


def items_of_objects(document: dict[str, dict[str, Any]]) -> Iterator[Any]:
    """Yield the records of {column: {row: value}}, which is pandas' default, or of {row: {column: value}}."""
    inner = next(iter(document.values()))
    is_by_column = all(key.isdigit() for key in inner) or (
        not all(key.isdigit() for key in document) and len(inner) > len(document)
    )
    if not is_by_column:
        yield from document.values()
        return
    rows = dict.fromkeys(key for column in document.values() for key in column)
    for row in rows:
        yield {name: column.get(row) for name, column in document.items()}


def items_of_columns(document: dict[str, list[Any]]) -> Iterator[Any]:
    """Yield the records of {column: [value, …]}."""
    if len({len(column) for column in document.values()}) != 1:
        raise InvalidError(_("The columns of this JSON file differ in length. Nothing was stored."), field="file")
    for row in zip(*document.values(), strict=True):
        yield dict(zip(document, row, strict=True))


def _with_numbers(row: Any) -> Any:
    """Give a list of cells names: numbers, or what they mean where spaCy wrote them. Leave anything else as it is."""
    if not isinstance(row, list) or len(row) < 2:
        return row
    if len(row) == 2 and isinstance(row[1], dict) and ("cats" in row[1] or "entities" in row[1]):
        cats = row[1].get("cats")
        if cats:
            return {"text": row[0], "label": [name for name, value in cats.items() if value and float(value) >= 0.5]}
        return {"text": row[0], "entities": row[1].get("entities") or []}
    return {f"column {number}": value for number, value in enumerate(row, 1)}


# --- from records to a table -----------------------------------------------------------------------------------------


def table_of_items(items: Iterable[Any], kind: str, scope: ReadScope, limit: int, *, flat: bool = False) -> Table:
    """Return the table of the items that are records; the others are counted as broken. `flat`: they are no export."""
    iterator = iter(items)
    first = [_with_numbers(item) for item in islice(iterator, _PEEKED)]
    rest = (_with_numbers(item) for item in iterator)
    export = None if flat else exports.recognise(first)
    builder = _TableBuilder(scope, limit, export)
    complete = True
    for number, item in enumerate(chain(first, rest), 1):
        if scope.head and len(builder.row_numbers) == HEAD_ROWS:
            complete = False
            break
        builder.add(number, item)
    table = builder.table(kind)
    table.complete = complete
    table.header = not any(re.fullmatch(r"column \d+", name) for name in table.columns)
    if not table.header:
        table.notes.append({"code": "no_header"})
    return table


class _TableBuilder:
    """Collects records column by column."""

    def __init__(self, scope: ReadScope, limit: int, export: Export | None) -> None:
        self.scope = scope
        self.limit = limit
        self.export = export
        self.broken = BrokenRecords()
        self.columns: dict[str, list[str]] = {}
        self.lists: set[str] = set()  # columns with lists of plain values
        self.nested: set[str] = set()  # columns with objects in lists
        self.row_numbers = array("I")
        self.left_out: dict[str, int] = {}
        self.left_out_examples: list[dict[str, Any]] = []
        self.has_beginnings = False  # spans that begin with a tag of their own
        self.broken_tags: list[int] = []  # rows
        self.untagged: list[int] = []

    def add(self, number: int, item: Any) -> None:
        """Add a record, or count it as broken or left out."""
        if not isinstance(item, dict):
            self.broken.add(number, str(item))
            if self.broken.hopeless:
                raise mostly_broken(self.broken)
            return
        record = self.export.convert(item) if self.export else item
        if isinstance(record, LeftOut):
            self.left_out[record.reason] = self.left_out.get(record.reason, 0) + 1
            if record.text and len(self.left_out_examples) < _MOST_EXAMPLES:
                self.left_out_examples.append({"row": number, "text": clean(record.text[:200]), "label": ""})
            return
        tag_faults = record.get(TAG_FAULTS) or {}
        self.has_beginnings = self.has_beginnings or bool(tag_faults.get("beginning"))
        if tag_faults.get("missing"):
            self.untagged.append(number)
        elif tag_faults.get("broken"):  # the tags continue no span
            self.broken_tags.append(number)
        fields = dict(_flatten({key: value for key, value in record.items() if key != TAG_FAULTS}))
        for key in fields:
            if key not in self.columns and (not self.scope.only or key in self.scope.only):
                if len(self.columns) >= MOST_COLUMNS:
                    raise InvalidError(_("This file has more than 1,000 columns. Nothing was stored."), field="file")
                self.columns[key] = [""] * len(self.row_numbers)
        for key, values in self.columns.items():
            value = fields.get(key)
            if isinstance(value, list):
                is_plain = not any(isinstance(part, (dict, list)) for part in value)
                (self.lists if is_plain else self.nested).add(key)
            values.append(cell(value))
        self.row_numbers.append(number)
        refuse_cells(len(self.row_numbers) * max(1, len(self.columns)), self.limit)

    def table(self, kind: str) -> Table:
        """Return the table of what was added."""
        names = unique_names(self.columns)
        shown = dict(zip(self.columns, names, strict=True))
        series = [pl.Series(shown[key], column, pl.String) for key, column in self.columns.items()]
        frame = pl.DataFrame([*series, pl.Series(ROW, self.row_numbers, pl.UInt32)])
        table = table_of(frame, kind, self.broken)
        table.lists = sorted(shown[key] for key in self.lists - self.nested)
        table.nested = sorted(shown[key] for key in self.nested)
        table.left_out = self.left_out
        table.left_out_examples = self.left_out_examples
        # In IOB1 all spans begin with I-, but for those behind a span of the same label.
        table.broken_tags = sorted(self.untagged + (self.broken_tags if self.has_beginnings else []))
        if self.export:
            table.notes.append({"code": "export", "tool": self.export.tool})
            table.label = shown.get(self.export.label, "")
            table.labels_kind = self.export.kind
        return table


def _flatten(record: Item, prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a record; those of an object in it are called by both names, as in `data.text`."""
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and depth < _DEEPEST:
            yield from _flatten(value, f"{name}.", depth + 1)
        else:
            yield name, value
