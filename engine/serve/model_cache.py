"""Keep what was used most recently in memory, together never more than a number of bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

from engine.serve.errors import BusyError

LOADING_SECONDS = 120.0  # a large model may take that long from a slow disk


@dataclass(slots=True)
class CacheEntry:
    """Something in memory. `users` counts callers and other entries that need it; it stays while there is one."""

    key: Hashable
    size: int
    value: Any = None
    users: int = 1
    ready: bool = False
    needs: list[CacheEntry] = field(default_factory=list)


class ModelCache:
    """Loads each thing once, on first use, and evicts what was used longest ago. Safe for threads.

    limit: bytes of all entries. patience: seconds to wait for an entry that is in use to become free.
    """

    def __init__(self, limit: int, patience: float) -> None:
        self.limit = limit
        self.patience = patience
        self._entries: OrderedDict[Hashable, CacheEntry] = OrderedDict()
        self._changed = Condition()

    @property
    def used(self) -> int:
        with self._changed:
            return sum(entry.size for entry in self._entries.values())

    def values(self) -> list[Any]:
        with self._changed:
            return [entry.value for entry in self._entries.values() if entry.ready]

    def acquire_if_loaded(self, key: Hashable) -> CacheEntry | None:
        """Return an entry for one more user, or None if it has to be loaded first."""
        with self._changed:
            entry = self._entries.get(key)
            return self._add_user(entry) if entry is not None and entry.ready else None

    def acquire(self, key: Hashable, size: int, load: Callable[[CacheEntry], Any]) -> CacheEntry:
        """Return an entry for one more user, loading it if needed; every call needs a `release`.

        Room is made before anything is loaded. Raises Busy if everything in memory stays in use.
        """
        entry = self._find_or_reserve(key, size)
        if entry.ready:
            return entry
        try:
            entry.value = load(entry)
        except BaseException:
            with self._changed:
                self._remove(entry)
            raise
        with self._changed:
            entry.ready = True
            self._changed.notify_all()
        return entry

    def release(self, entry: CacheEntry) -> None:
        with self._changed:
            entry.users -= 1
            self._changed.notify_all()

    def _find_or_reserve(self, key: Hashable, size: int) -> CacheEntry:
        """Return a ready entry, or a new one that the caller has to load; wait while another thread loads it."""
        with self._changed:
            deadline = time.monotonic() + LOADING_SECONDS
            entry = self._entries.get(key)
            while entry is not None and not entry.ready:
                self._wait(deadline)
                entry = self._entries.get(key)  # gone if loading failed: then this thread tries
            if entry is not None:
                return self._add_user(entry)
            reserved = self._entries[key] = CacheEntry(key, size)
            try:
                self._make_room(time.monotonic() + self.patience)
            except BusyError:
                self._remove(reserved)
                raise
            return reserved

    def _add_user(self, entry: CacheEntry) -> CacheEntry:
        entry.users += 1
        self._entries.move_to_end(entry.key)
        return entry

    def _make_room(self, deadline: float) -> None:
        while self.used > self.limit:
            unused = next((entry for entry in self._entries.values() if entry.ready and not entry.users), None)
            if unused is None:
                self._wait(deadline)
            else:
                self._remove(unused)

    def _remove(self, entry: CacheEntry) -> None:
        self._entries.pop(entry.key, None)
        for needed in entry.needs:
            needed.users -= 1
        entry.value = None
        entry.needs = []
        self._changed.notify_all()

    def _wait(self, deadline: float) -> None:
        if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
            raise BusyError("All models in memory are in use, and there is no room for another one.", self.patience)
