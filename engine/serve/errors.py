"""What can keep a model from answering."""

from __future__ import annotations


class Unreadable(Exception):
    """The folder holds no model that can be loaded; the message says why, and no path of this machine."""


class TooLarge(Unreadable):
    """The model alone needs more memory than models may take."""


class Busy(Exception):
    """There is more to do than can be done soon; `wait` says in how many seconds it is worth asking again."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = max(1.0, wait)
