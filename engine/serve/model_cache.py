"""What is in memory, by how recently it was asked: together never more than a number of bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

from engine.serve.errors import Busy

LOADING = 120.0  # seconds that a large model may take from a slow disk


@dataclass(slots=True)
class Held:
    """Something in memory. `users` are callers and other things that need it; it stays while there is one."""

    key: Hashable
    size: int
    value: Any = None
    users: int = 1
    ready: bool = False
    needs: list[Held] = field(default_factory=list)


class Memory:
    """Loads on first use, each thing once, and lets go of what was asked longest ago. For many threads."""

    def __init__(self, limit: int, patience: float) -> None:
        self.limit, self.patience = limit, patience
        self._held: OrderedDict[Hashable, Held] = OrderedDict()
        self._changed = Condition()

    @property
    def used(self) -> int:
        with self._changed:
            return sum(held.size for held in self._held.values())

    def values(self) -> list[Any]:
        with self._changed:
            return [held.value for held in self._held.values() if held.ready]

    def known(self, key: Hashable) -> Held | None:
        """What is in memory already, for one more user; None where it has to be loaded."""
        with self._changed:
            found = self._held.get(key)
            return self._used(found) if found and found.ready else None

    def take(self, key: Hashable, size: int, load: Callable[[Held], Any]) -> Held:
        """Room is made before anything is loaded; Busy where all that is in memory stays in use."""
        known = self._known_or_reserved(key, size)
        if known.ready:
            return known
        try:
            known.value = load(known)
        except BaseException:
            with self._changed:
                self._drop(known)
            raise
        with self._changed:
            known.ready = True
            self._changed.notify_all()
        return known

    def give(self, held: Held) -> None:
        with self._changed:
            held.users -= 1
            self._changed.notify_all()

    def _known_or_reserved(self, key: Hashable, size: int) -> Held:
        with self._changed:
            loaded_until = time.monotonic() + LOADING
            while (known := self._held.get(key)) and not known.ready:  # another thread loads it
                self._wait(loaded_until)
            if known:
                return self._used(known)
            reserved = self._held[key] = Held(key, size)
            try:
                self._make_room(time.monotonic() + self.patience)
            except Busy:
                self._drop(reserved)
                raise
            return reserved

    def _used(self, held: Held) -> Held:
        held.users += 1
        self._held.move_to_end(held.key)
        return held

    def _make_room(self, until: float) -> None:
        while self.used > self.limit:
            free = next((held for held in self._held.values() if held.ready and not held.users), None)
            if free is None:
                self._wait(until)
            else:
                self._drop(free)

    def _drop(self, held: Held) -> None:
        self._held.pop(held.key, None)
        for needed in held.needs:
            needed.users -= 1
        held.value, held.needs = None, []
        self._changed.notify_all()

    def _wait(self, until: float) -> None:
        if not self._changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
            raise Busy("All models in memory are in use, and there is no room for another one.", self.patience)
