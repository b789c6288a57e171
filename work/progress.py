"""The one road of progress: what the work has come to, written at most once a second and only by who holds it."""

import time
from typing import Any

from django.db import DatabaseError, connection, transaction

from . import lease
from .models import Work

WRITE_EVERY = 1.0  # seconds


class Progress:
    """Collects changes of the row; `write` stores them if this attempt still holds the work, else raises Fenced."""

    def __init__(self, task: Work) -> None:
        self.task = task
        self.changes: dict[str, Any] = {}
        self.written_at = 0.0

    def write_when_due(self) -> None:
        if time.monotonic() - self.written_at >= WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """A database that is away for a moment costs nothing: what was collected is written the next time."""
        self.written_at = time.monotonic()
        try:
            with transaction.atomic():
                lease.write(self.task, **(self.changes or {"attempt": self.task.attempt}))
                self.write_more()
        except DatabaseError:
            if not connection.in_atomic_block:
                connection.close()
            return
        self.forget()

    def write_more(self) -> None:
        """What a kind of work stores beside its row, in the same transaction."""

    def forget(self) -> None:
        """All that was collected is stored."""
        self.changes = {}
