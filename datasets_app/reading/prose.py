"""Read a file of plain text, such as a book or notes in Markdown, as documents."""

from pathlib import Path

import polars as pl

from datasets_app.reading.archives import refuse_cells
from datasets_app.reading.characters import clean
from datasets_app.reading.delimited import first_lines
from datasets_app.reading.dialects import are_records
from datasets_app.reading.options import FileOptions
from datasets_app.reading.table import HEAD_ROWS, ROW, ReadScope, Table, no_rows
from engine.data.documents import split_documents

_FEWEST_CHARACTERS = 500  # of a file that is taken for prose unless a person says so


def holds_prose(text: Path, options: FileOptions) -> bool:
    """Return whether a file in UTF-8 holds documents: as the person says, else by its first lines."""
    if options.prose is not None:
        return options.prose
    lines = first_lines(text)
    return sum(map(len, lines)) >= _FEWEST_CHARACTERS and not are_records(lines)


def read_prose(text: Path, scope: ReadScope, limit: int) -> Table:
    """Return the documents of a file in UTF-8, each as a row."""
    content = text.read_text(encoding="utf-8-sig", errors="replace")
    documents = [clean(document) for document in split_documents(content)]
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
