"""The audit log as CSV, line by line, so that memory does not grow with its length."""

from collections.abc import Iterator

from django.db.models import QuerySet

from web.csv_lines import csv_line

from .models import Entry

COLUMNS = ("id", "at", "username", "action", "object_type", "object_id", "result", "address", "request_id", "details")
CHAIN = ("previous", "hash")


def lines(entries: QuerySet[Entry]) -> Iterator[str]:
    """Yield the header, then a line per entry."""
    columns = (*COLUMNS, *CHAIN)
    yield csv_line(columns)
    for entry in entries.iterator():
        yield csv_line(getattr(entry, name) for name in columns)
