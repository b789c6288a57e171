"""The audit log as CSV, line by line, so that memory does not grow with its length."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime

from django.db.models import QuerySet

from .models import Entry

COLUMNS = ("id", "at", "username", "action", "object_type", "object_id", "result", "address", "request_id", "details")
CHAIN = ("previous", "hash")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def lines(entries: QuerySet[Entry]) -> Iterator[str]:
    """Yield the header, then a line per entry."""
    yield _line((*COLUMNS, *CHAIN))
    for entry in entries.iterator():
        yield _line([_cell(getattr(entry, name)) for name in (*COLUMNS, *CHAIN)])


def _cell(value: object) -> str:
    """Return a value as text that no spreadsheet executes as a formula."""
    if value is None:
        text = ""
    elif isinstance(value, dict):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, datetime):
        text = value.isoformat()
    else:
        text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
