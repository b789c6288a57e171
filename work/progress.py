"""Write the progress of a task: at most once a second, and only while this attempt holds the lease."""

import time
from typing import Any

from django.db import DatabaseError, connection, transaction

from . import lease
from .models import Work

WRITE_EVERY = 1.0  # seconds


class Progress:
    """Collect changes of a task's row in `changes` and write them together.

    A kind of task that stores more than its row, such as curves, overrides `write_more` and `clear`.
    """

    def __init__(self, task: Work) -> None:
        self.task = task
        self.changes: dict[str, Any] = {}
        self.written_at = 0.0

    def write_when_due(self) -> None:
        if time.monotonic() - self.written_at >= WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write what was collected; raise LeaseLostError if this attempt no longer holds the task.

        While the database is away nothing is lost: the changes stay collected and the next call writes them.
        """
        self.written_at = time.monotonic()
        try:
            with transaction.atomic():
                # Without changes the UPDATE still proves that this attempt holds the lease.
                lease.update(self.task, **(self.changes or {"attempt": self.task.attempt}))
                self.write_more()
        except DatabaseError:
            if not connection.in_atomic_block:
                connection.close()
            return
        self.clear()

    def write_more(self) -> None:
        """Write what is stored beside the row, in the same transaction."""

    def clear(self) -> None:
        """Drop what was collected, because it is written now."""
        self.changes = {}
