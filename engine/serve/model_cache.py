"""Keep what was used most recently in memory, together never more than a number of bytes."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Condition, RLock
from typing import Any

from engine.sentences import Sentence, gettext_noop
from engine.serve.errors import BusyError, ModelTooLargeError

MIB = 2**20
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
        # Whoever plans and loads something holds it: importing transformers and initialising its models fails in two threads at once.
        self.loading = RLock()
        self._entries: OrderedDict[Hashable, CacheEntry] = OrderedDict()
        self._changed = Condition()

    @property
    def used(self) -> int:
        """Return the bytes of all entries, also of those that are being loaded."""
        with self._changed:
            return sum(entry.size for entry in self._entries.values())

    def values(self) -> list[Any]:
        """Return what is in memory, least recently used first."""
        with self._changed:
            return [entry.value for entry in self._entries.values() if entry.ready]

    def acquire_if_loaded(self, key: Hashable) -> CacheEntry | None:
        """Return an entry for one more user, or None if it has to be loaded first."""
        with self._changed:
            entry = self._entries.get(key)
            return self._add_user(entry) if entry is not None and entry.ready else None

    def acquire(self, key: Hashable, size: int, load: Callable[[CacheEntry], Any]) -> CacheEntry:
        """Return an entry for one more user, loading it if needed; every call needs a `release`.

        Room is made before anything is loaded. Raises BusyError if everything in memory stays in use.
        """
        with self._changed:
            # Another thread may be loading it. If that fails, its entry is gone, and this thread tries.
            deadline = time.monotonic() + LOADING_SECONDS
            present = self._entries.get(key)
            while present is not None and not present.ready:
                self._wait(deadline)
                present = self._entries.get(key)
            if present is not None:
                return self._add_user(present)
            # The entry counts from now on, so that threads that load at the same time do not exceed the limit together.
            entry = self._entries[key] = CacheEntry(key, size)
        try:
            with self._changed:
                deadline = time.monotonic() + self.patience
                while self.used > self.limit:
                    unused = next((other for other in self._entries.values() if other.ready and not other.users), None)
                    if unused is None:
                        self._wait(deadline)
                    else:
                        self._remove(unused)
            entry.value = load(entry)
        except BaseException:
            with self._changed:
                self._remove(entry)
            raise
        with self._changed:
            entry.ready = True
            self._changed.notify_all()
        return entry

    def require_room(self, size: int) -> None:
        """Raise ModelTooLargeError if so many bytes are more than all entries together may take."""
        if size > self.limit:
            message = gettext_noop(
                "it needs {needed} MiB of memory, and all models together may take {limit} MiB (SERVE_MEMORY_MB)"
            )
            raise ModelTooLargeError(Sentence(message, needed=math.ceil(size / MIB), limit=self.limit // MIB))

    def release(self, entry: CacheEntry) -> None:
        """Give an entry back that `acquire` or `acquire_if_loaded` returned; without users it may be evicted."""
        with self._changed:
            entry.users -= 1
            self._changed.notify_all()

    def _add_user(self, entry: CacheEntry) -> CacheEntry:
        entry.users += 1
        self._entries.move_to_end(entry.key)
        return entry

    def _remove(self, entry: CacheEntry) -> None:
        """Drop an entry and stop using what it needs. References that others hold keep their values alive."""
        self._entries.pop(entry.key, None)
        for needed in entry.needs:
            needed.users -= 1
        entry.value = None
        entry.needs = []
        self._changed.notify_all()

    def _wait(self, deadline: float) -> None:
        """Wait until any entry changes. Raises BusyError after the deadline, which is in time.monotonic()'s seconds."""
        if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
            raise BusyError("All models in memory are in use, and there is no room for another one.", self.patience)
