"""The function through which long-running work on data reports its progress."""

from typing import Protocol


class ReportProgress(Protocol):
    """Called with the stage (a value of `DataTask.Stage`) and how much of it is done.

    A call may raise `work.running.TaskStoppedError`, when the task was cancelled or the worker stops.
    """

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None: ...


def ignore_progress(stage: str, done: int = 0, total: int = 0) -> None:
    """Do nothing: for work that ends within a second, whose progress nobody sees."""
