"""Read a data file into a table of strings, whatever its format, in bounded memory.

Files that people send are read through `sandbox.py`, which calls `read` in a process of its own. What cannot be read, is left
out, or is read otherwise than it stands in the file is counted or noted in the table; nothing is dropped silently.
"""

import codecs
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.formula_quoting import OWN_BEGINNING, QUOTED, unquote_formulas
from datasets_app.reading.archives import (
    CHUNK,
    DataFile,
    head_of,
    kind_of,
    refuse_binary,
    too_large,
    unpack,
    zip_names,
)
from datasets_app.reading.class_texts import read_class_texts
from datasets_app.reading.delimited import read_delimited
from datasets_app.reading.encodings import ENCODINGS, READABLE, Detected, detect
from datasets_app.reading.json_documents import read_json
from datasets_app.reading.line_formats import line_format, read_line_format
from datasets_app.reading.options import FileOptions
from datasets_app.reading.parquet import read_parquet
from datasets_app.reading.prose import hold_documents, holds_prose, read_documents, read_prose
from datasets_app.reading.table import HEAD_BYTES, ROW, ReadScope, Table, no_rows
from datasets_app.reading.workbooks import is_workbook, sheet_to_csv
from web.errors import InvalidError


def read(
    file: Path,
    filename: str,
    *,
    limit: int,
    options: FileOptions | dict[str, Any] | None = None,
    scratch: Path | None = None,
    head: bool = False,
    only: Sequence[str] = (),
) -> Table:
    """Read a file. Raises InvalidError or FileTooLargeError, with a message for the person who sent it.

    `limit`: bytes, both packed and unpacked. `scratch`: folder for unpacked and recoded copies. `head`: read only the first
    rows. `only`: read only these columns, so that a large file needs less memory.
    """
    options = options if isinstance(options, FileOptions) else FileOptions(**(options or {}))
    if options.encoding and options.encoding not in READABLE:
        message = _("The encoding “%(name)s” is not supported. Choose one of: %(known)s.")
        raise InvalidError(message % {"name": options.encoding[:40], "known": ", ".join(ENCODINGS)}, field="encoding")
    scope = ReadScope(head, tuple(only))
    with tempfile.TemporaryDirectory(prefix="reading-", dir=scratch) as folder:
        is_plain = is_workbook(file)  # a workbook is a ZIP archive, too
        files = [DataFile(file, filename)]
        if not is_plain:
            files = unpack(file, filename, Path(folder), limit=limit, prose=options.prose)
        are_documents = hold_documents(files, options)
        if are_documents or files[0].label is not None:
            read_texts = read_documents if are_documents else read_class_texts
            table = read_texts(files, Path(folder), options, scope, limit)
            left = sorted({*zip_names(file)} - {part.name for part in files})
            if left := [name for name in left if not name.endswith("/")]:
                table.notes.append({"code": "other_files", "count": len(left), "files": left[:5]})
            return table
        tables = [read_plain(part, Path(folder), options, scope, limit) for part in files]
    table = tables[0] if len(tables) == 1 else join_splits(files, tables)
    if not table.columns or table.frame.is_empty():
        raise no_rows()
    while head and table.frame.height > 1 and table.frame.estimated_size() > HEAD_BYTES:
        table.frame = table.frame.head(table.frame.height // 2).clone()
        table.complete = False
    return table


def read_plain(file: DataFile, scratch: Path, options: FileOptions, scope: ReadScope, limit: int) -> Table:
    """Read one file that is packed no more."""
    if is_workbook(file.path):
        return _read_workbook(file.path, scratch, options, scope, limit)
    first_bytes = head_of(file.path)
    kind = kind_of(file.name, first_bytes)
    if kind == "parquet":
        return read_parquet(file.path, limit, scope)
    if not options.encoding.startswith(("utf-16", "utf-32")):  # these may look like binary data
        refuse_binary(first_bytes)
    text, detected, replaced = recode_to_utf8(file.path, scratch / f"{file.path.name}.utf8", limit, options.encoding)
    table = _read_text(text, kind, options, scope, limit)
    table.encoding = detected.encoding
    table.encodings = detected.candidates
    if table.delimiter and first_bytes.startswith(OWN_BEGINNING):
        # Our own CSV has apostrophes before what a spreadsheet would run as a formula.
        quoted = table.frame.select(pl.col(name).str.contains(QUOTED).sum() for name in table.columns)
        count = sum(quoted.row(0))
        if count:
            table.frame = table.frame.with_columns(unquote_formulas(name) for name in table.columns)
            table.notes.append({"code": "formula_marks", "count": count})
    if replaced:
        table.notes.append({"code": "replaced_characters", "count": replaced, "encoding": detected.encoding})
    return table


def _read_text(text: Path, kind: str, options: FileOptions, scope: ReadScope, limit: int) -> Table:
    """Read a text file in UTF-8."""
    if kind in ("json", "jsonl"):
        return read_json(text, kind, scope, limit)
    is_named = options.delimiter or options.quote is not None or options.header is not None
    if not is_named and (line_kind := line_format(text)):
        return read_line_format(text, line_kind, scope, limit)
    if kind == "" and _begins_like_json(text):  # its name does not say what it is
        try:
            return read_json(text, "json" if head_of(text).lstrip()[:1] == b"[" else "jsonl", scope, limit)
        except InvalidError:
            pass  # a text may begin with a bracket
    if kind == "" and not is_named and holds_prose(text, options):
        return read_prose(text, scope, limit)
    return read_delimited(text, kind or "csv", options, scope, limit)


def _begins_like_json(text: Path) -> bool:
    head = head_of(text).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if head.startswith("{"):
        try:
            json.JSONDecoder().raw_decode(head)
        except ValueError:
            return '"' in head[:40]
        return True
    return head.startswith("[") and head[1:].lstrip()[:1] in ("{", "[", '"')


def _read_workbook(file: Path, scratch: Path, options: FileOptions, scope: ReadScope, limit: int) -> Table:
    """Read a sheet of a workbook: its cells as CSV, so that a header is found in the same way."""
    target = scratch / "sheet.csv"
    sheet, sheets = sheet_to_csv(file, target, options.sheet, limit)
    table = read_delimited(target, "csv", replace(options, delimiter=",", quote='"', encoding=""), scope, limit)
    table.kind = "workbook"
    table.encoding = table.delimiter = table.quote = ""
    table.encodings = ()
    table.sheet = sheet
    table.sheets = sheets
    if len(sheets) > 1:
        table.notes.append({"code": "other_sheets", "sheet": sheet, "sheets": [s for s in sheets if s != sheet][:10]})
    return table


def recode_to_utf8(plain: Path, target: Path, limit: int, chosen: str) -> tuple[Path, Detected, int]:
    """Return the file as UTF-8, its encoding (the chosen one, else a guess), and the number of characters replaced.

    The file is the given one if it is UTF-8 already, else a copy. What cannot be decoded becomes U+FFFD.
    """
    detected = detect(plain)
    if chosen and chosen != detected.encoding:
        detected = Detected(chosen, tuple(dict.fromkeys([chosen, *detected.candidates])), is_valid=False)
    if detected.encoding == "utf-8" and detected.is_valid and not detected.has_bom:
        return plain, detected, 0
    codec = "utf-8-sig" if detected.encoding == "utf-8" else detected.encoding
    replaced = 0

    def count(error: UnicodeError) -> tuple[str, int]:
        nonlocal replaced
        replaced += 1
        assert isinstance(error, UnicodeDecodeError)
        return "\ufffd", error.end

    codecs.register_error("replace and count", count)
    written = 0
    try:
        with (
            open(plain, encoding=codec, errors="replace and count", newline="") as source,
            open(target, "w", encoding="utf-8", errors="replace", newline="") as out,
        ):
            while chunk := source.read(CHUNK):
                written += out.write(chunk)
                if written > limit:
                    raise too_large(limit)
    except (LookupError, UnicodeError):
        raise InvalidError(_("The file cannot be read in this encoding. Choose another."), field="encoding") from None
    return target, detected, replaced


def join_splits(files: Sequence[DataFile], tables: Sequence[Table]) -> Table:
    """Return the rows of several files in one table, with a column that names the split of each."""
    first = tables[0]
    for file, table in zip(files, tables, strict=True):
        if set(table.columns) != set(first.columns):
            message = _(
                "The files of this archive have different columns: “%(first)s” has %(these)s, “%(other)s” has %(those)s. "
                "Nothing was stored. Give all splits the same columns, or join them in one file with a column split."
            )
            facts = {"first": files[0].name[:60], "other": file.name[:60]}
            facts |= {"these": ", ".join(first.columns[:10]), "those": ", ".join(table.columns[:10])}
            raise InvalidError(message % facts, field="file")
    column = "split" if "split" not in first.columns else "split of the file"
    frames = []
    broken_tags: list[int] = []
    left_out_examples: list[dict[str, Any]] = []
    before = 0
    for file, table in zip(files, tables, strict=True):
        frame = table.frame.with_columns((pl.col(ROW) + before).cast(pl.UInt32), pl.lit(file.split).alias(column))
        frames.append(frame.select([*first.columns, column, ROW]))
        for example in table.broken_examples:
            example["row"] += before
        broken_tags += [row + before for row in table.broken_tags]
        left_out_examples += [example | {"row": example["row"] + before} for example in table.left_out_examples]
        before = frame[ROW][-1] if frame.height else before
    joined = replace(first, frame=pl.concat(frames), split=column)
    joined.complete = all(table.complete for table in tables)
    joined.broken_lines = sum(table.broken_lines for table in tables)
    joined.broken_examples = [example for table in tables for example in table.broken_examples][:20]
    joined.broken_text = "".join(table.broken_text for table in tables)
    joined.lists = sorted({name for table in tables for name in table.lists})
    joined.nested = sorted({name for table in tables for name in table.nested})
    joined.broken_tags = broken_tags
    joined.left_out_examples = left_out_examples
    joined.left_out = add_counts(table.left_out for table in tables)
    joined.lines = add_counts(table.lines for table in tables)
    joined.notes = [*merge_notes(note for table in tables for note in table.notes)]
    names = {file.name.rpartition("/")[2]: file.split for file in files}
    joined.notes.append({"code": "split_files", "files": names})
    return joined


def add_counts(counts: "Sequence[dict[str, int]] | Any") -> dict[str, int]:
    """Return the sums of several {name: count}."""
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def merge_notes(notes: "Sequence[dict[str, Any]] | Any") -> list[dict[str, Any]]:
    """Return one note of each code, with the sum of their counts."""
    merged: dict[str, dict[str, Any]] = {}
    for note in notes:
        known = merged.setdefault(note["code"], {**note, "count": 0} if "count" in note else note)
        if "count" in note:
            known["count"] += note["count"]
    return [*merged.values()]
