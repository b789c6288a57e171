"""The audit log as CSV, line by line, so that its length never matters."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet

from .models import Entry

COLUMNS = ("id", "at", "username", "action", "object_type", "object_id", "result", "address", "request_id", "details")
CHAIN = ("previous", "hash")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def lines(entries: QuerySet[Entry]) -> Iterator[str]:
    """The header, then a line per entry."""
    yield _line((*COLUMNS, *CHAIN))
    for entry in entries.iterator():
        yield _line([_cell(getattr(entry, name)) for name in (*COLUMNS, *CHAIN)])


def _cell(value: Any) -> str:
    """A text that no spreadsheet takes for a formula."""
    if isinstance(value, dict):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = "" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(cells: Any) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()
