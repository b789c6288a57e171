"""The audit log as CSV, line by line, so that memory does not grow with its length."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime

from django.db.models import QuerySet

from .models import Entry

COLUMNS = ("id", "at", "username", "action", "object_type", "object_id", "result", "address", "request_id", "details")
CHAIN = ("previous", "hash")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def lines(entries: QuerySet[Entry]) -> Iterator[str]:
    """Yield the header, then a line per entry."""
    columns = (*COLUMNS, *CHAIN)
    yield ",".join(columns) + "\r\n"
    for entry in entries.iterator():
        line = io.StringIO()  # csv writes to files only
        csv.writer(line).writerow([cell_text(getattr(entry, name)) for name in columns])
        yield line.getvalue()


def cell_text(value: object) -> str:
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
