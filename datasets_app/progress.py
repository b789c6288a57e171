"""How long-running work on data reports its progress, without knowing who listens."""

from typing import Protocol


class ReportProgress(Protocol):
    """Called with the stage (a value of `DataTask.Stage`) and how much of it is done.

    A call may raise `work.running.Interrupted`, when the task was cancelled or the worker stops.
    """

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None: ...


def ignore_progress(stage: str, done: int = 0, total: int = 0) -> None:
    """Report to nobody: for work that ends within a second."""
