"""Read an archive whose files or folders are called after labels."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.reading.archives import DataFile, head_of, refuse_binary, refuse_cells
from datasets_app.reading.characters import clean
from datasets_app.reading.dialects import guess_layout
from datasets_app.reading.encodings import detect
from datasets_app.reading.line_formats import line_format
from datasets_app.reading.options import FileOptions
from datasets_app.reading.table import HEAD_ROWS, ROW, ReadScope, Table, no_rows
from web.errors import InvalidError

_FEWEST_LINES = 4  # that tell a table from texts
_LOOKED_AT = 200  # lines by which a table is told from texts


def read_class_texts(
    files: Sequence[DataFile], scratch: Path, options: FileOptions, scope: ReadScope, limit: int
) -> Table:
    """Return the texts of files that are called after labels, with the label and perhaps the split of each."""
    for file in files:
        refuse_binary(head_of(file.path))
    encoding = options.encoding or encoding_of_all(files, scratch)
    if not files[0].is_one_text:
        refuse_tables(files, encoding)
    rows: list[tuple[str, str, str]] = []
    blank = 0
    replaced = 0
    complete = True
    for file in files:
        text = file.path.read_bytes().decode(encoding, "replace").removeprefix("\ufeff")
        replaced += text.count("\ufffd")
        texts = [text.strip()] if file.is_one_text else text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        filled = [clean(line) for line in texts if file.is_one_text or line.strip()]
        blank += len(texts) - len(filled) - (not file.is_one_text and not texts[-1])
        if scope.head:
            complete = complete and len(filled) <= HEAD_ROWS
            filled = filled[:HEAD_ROWS]
        rows += [(line, file.label or "", file.split or "") for line in filled]
        refuse_cells(len(rows) * 3, limit)
    if not rows:
        raise no_rows()
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("text", "label", "split"), pl.String), orient="row")
    has_splits = all(file.split for file in files)
    frame = frame.with_row_index(ROW, offset=1).select("text", "label", *(["split"] if has_splits else []), ROW)
    table = Table(frame, "text", encoding, (encoding,), complete=complete, header=False)
    table.text = "text"
    table.label = "label"
    table.split = "split" if has_splits else ""
    if complete and not files[0].is_one_text:
        table.lines = {"blank": blank, "records": len(rows)}
    labels = sorted({file.label for file in files if file.label})
    table.notes = [{"code": "class_folders" if files[0].is_one_text else "class_files", "labels": labels[:20]}]
    if replaced:
        table.notes.append({"code": "replaced_characters", "count": replaced, "encoding": encoding})
    return table


def encoding_of_all(files: Sequence[DataFile], scratch: Path) -> str:
    """Return the encoding that fits the files together: one short text alone seldom tells it."""
    together = scratch / "together"
    with open(together, "wb") as out:
        for file in files:
            out.write(file.path.read_bytes() + b"\n")
    return detect(together).encoding


def refuse_tables(files: Sequence[DataFile], encoding: str) -> None:
    """Raise InvalidError for files whose lines have columns: these are tables, and their names no labels."""
    for file in files:
        lines = file.path.read_bytes().decode(encoding, "replace").splitlines(keepends=True)[:_LOOKED_AT]
        layout = guess_layout(lines, FileOptions(), "\t")
        if line_format(file.path) or (len(lines) >= _FEWEST_LINES and layout.width > 1 and layout.classes):
            message = _(
                "The files of this archive are tables, and it is not clear how they belong together. Nothing was stored. Name "
                "them after their splits (train.csv, test.csv), or send one of them."
            )
            raise InvalidError(message, field="file")
