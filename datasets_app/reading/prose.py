"""Read plain text, such as a book, notes in Markdown or an archive of either, as documents."""

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from datasets_app.reading.archives import DataFile, head_of, refuse_binary, refuse_cells
from datasets_app.reading.characters import clean
from datasets_app.reading.class_texts import encoding_of_all
from datasets_app.reading.delimited import first_lines
from datasets_app.reading.dialects import are_records
from datasets_app.reading.options import FileOptions
from datasets_app.reading.table import HEAD_ROWS, ROW, ReadScope, Table, no_rows
from engine.data.documents import FEWEST_PARTS, split_documents

_PARAGRAPHS = re.compile(rb"\n[ \t]*\r?\n")
_FEWEST_CHARACTERS = 500  # of a file that is taken for prose unless a person says so


def holds_prose(text: Path, options: FileOptions) -> bool:
    """Return whether a file in UTF-8 holds documents: as the person says, else by its first lines."""
    if options.prose is not None:
        return options.prose
    lines = first_lines(text)
    return sum(map(len, lines)) >= _FEWEST_CHARACTERS and not are_records(lines)


def hold_documents(files: Sequence[DataFile], options: FileOptions) -> bool:
    """Return whether files of an archive are documents: as the person says, else by their names and what they hold.

    Where each line is a text of the label that its file is called after, blank lines set no paragraphs apart.
    """
    if files[0].label is None:
        return files[0].is_document
    if options.prose is not None:
        return options.prose
    if files[0].is_one_text:
        return False
    return sum(bool(_PARAGRAPHS.search(file.path.read_bytes().strip())) for file in files) > len(files) / 2


def read_documents(
    files: Sequence[DataFile], scratch: Path, options: FileOptions, scope: ReadScope, limit: int
) -> Table:
    """Return the documents of several files: each file is one. Where there are few, long ones are cut, so that some can be held out."""
    for file in files:
        refuse_binary(head_of(file.path))
    encoding = options.encoding or encoding_of_all(files, scratch)
    texts = [file.path.read_bytes().decode(encoding, "replace").removeprefix("\ufeff") for file in files]
    if len(texts) < FEWEST_PARTS:
        texts = [part for text in texts for part in split_documents(text)]
    table = _table_of([text.replace("\r\n", "\n").strip("\n") for text in texts if text.strip()], scope, limit)
    table.notes[0]["code"] = "document_files"
    table.encoding = encoding
    table.encodings = (encoding,)
    if replaced := sum(text.count("\ufffd") for text in texts):
        table.notes.append({"code": "replaced_characters", "count": replaced, "encoding": encoding})
    return table


def read_prose(text: Path, scope: ReadScope, limit: int) -> Table:
    """Return the documents of a file in UTF-8, each as a row."""
    return _table_of(split_documents(text.read_text(encoding="utf-8-sig", errors="replace")), scope, limit)


def _table_of(texts: Sequence[str], scope: ReadScope, limit: int) -> Table:
    documents = [clean(text) for text in texts]
    refuse_cells(len(documents), limit)
    if not documents:
        raise no_rows()
    shown = documents[:HEAD_ROWS] if scope.head else documents
    frame = pl.DataFrame({"text": shown}).with_row_index(ROW, offset=1).select("text", ROW)
    table = Table(frame, "text", complete=len(shown) == len(documents), header=False)
    table.text = "text"
    table.labels_kind = "text"
    table.notes = [{"code": "documents", "count": len(documents)}]
    return table
