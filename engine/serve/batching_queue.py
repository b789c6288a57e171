"""One thread owns the queue and does all computing; callers hand it rows and wait.

A batch takes what waits for the same base model, whoever asked, as long as its tokens fit the budget. More work than can
be done soon is refused at once instead of kept waiting, and who has stopped waiting is skipped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Event, Thread

from engine.serve.batch import Computes, Output, Row
from engine.serve.errors import Busy

FIRST_GUESS = 2000.0  # tokens a second, until there is a measurement
NEWEST = 0.3  # weight of the newest measurement


@dataclass(slots=True, eq=False)
class Ticket:
    """What one caller waits for."""

    by: Computes
    rows: list[Row]
    asked_at: float
    found: dict[int, Output] = field(default_factory=dict)
    started_at: float = 0.0
    ended_at: float = 0.0
    left: bool = False  # the caller waits no longer
    error: Exception | None = None
    done: Event = field(default_factory=Event)

    @property
    def outputs(self) -> list[Output]:
        """In the order of the rows, once it is done."""
        return [self.found[i] for i in range(len(self.rows))]


class Queue:
    """`budget`: tokens of a batch; `patience`: seconds that a caller may have to wait before it is told to come back.

    `begin` is called once by the thread that computes, before anything else.
    """

    def __init__(self, budget: int, patience: float, begin: Callable[[], None] = lambda: None) -> None:
        self.budget, self.patience, self.begin = budget, patience, begin
        self.speed = FIRST_GUESS
        self.waiting_tokens = 0
        self._waiting: deque[tuple[Ticket, int]] = deque()
        self._changed = Condition()
        self._owner: Thread | None = None

    def compute(self, by: Computes, rows: list[Row], timeout: float) -> Ticket:
        """The outputs of all rows; Busy where too much waits already, or where they were not done in time."""
        ticket = Ticket(by, rows, time.monotonic())
        self._put(ticket)
        if not ticket.done.wait(timeout):
            ticket.left = True
            raise Busy("The answer took too long, so it was given up.", self.seconds_waiting)
        if ticket.error is not None:
            raise ticket.error
        return ticket

    @property
    def seconds_waiting(self) -> float:
        return self.waiting_tokens / self.speed

    def _put(self, ticket: Ticket) -> None:
        with self._changed:
            if self.seconds_waiting > self.patience:
                raise Busy("More texts wait than can be answered soon.", self.seconds_waiting)
            self._waiting.extend((ticket, i) for i in range(len(ticket.rows)))
            self.waiting_tokens += sum(len(row.ids) for row in ticket.rows)
            if self._owner is None:  # not before: a process that forks would lose the thread
                self._owner = Thread(target=self._own, name="predictions", daemon=True)
                self._owner.start()
            self._changed.notify()

    def _own(self) -> None:
        self.begin()
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                batch = self._next_batch()
            self._answer(batch)

    def _next_batch(self) -> list[tuple[Ticket, int]]:
        """The oldest rows of the oldest caller's base model that fit together; the others keep their order."""
        batch: list[tuple[Ticket, int]] = []
        rest: list[tuple[Ticket, int]] = []
        tokens = 0
        while self._waiting:
            ticket, i = self._waiting.popleft()
            size = len(ticket.rows[i].ids)
            if ticket.left:
                self.waiting_tokens -= size
            elif batch and ticket.by is batch[0][0].by and tokens + size > self.budget:
                rest.append((ticket, i))
                break
            elif batch and ticket.by is not batch[0][0].by:
                rest.append((ticket, i))
            else:
                batch.append((ticket, i))
                tokens += size
        self._waiting.extendleft(reversed(rest))
        return batch

    def _answer(self, batch: list[tuple[Ticket, int]]) -> None:
        started = time.monotonic()
        tickets = list(dict.fromkeys(ticket for ticket, _i in batch))
        for ticket in tickets:
            ticket.started_at = ticket.started_at or started
        tokens = sum(len(ticket.rows[i].ids) for ticket, i in batch)
        try:
            self._compute(batch)
        except Exception as error:
            self._one_by_one(tickets, batch, error)
        self._end(tickets, tokens, time.monotonic() - started)

    def _compute(self, batch: list[tuple[Ticket, int]]) -> None:
        outputs = batch[0][0].by.outputs([ticket.rows[i] for ticket, i in batch])
        for (ticket, i), output in zip(batch, outputs, strict=True):
            ticket.found[i] = output

    def _one_by_one(self, tickets: list[Ticket], batch: list[tuple[Ticket, int]], error: Exception) -> None:
        """A model that can't answer takes no other caller of the same batch with it."""
        for ticket in tickets:
            try:
                if len(tickets) == 1:
                    raise error
                self._compute([(each, i) for each, i in batch if each is ticket])
            except Exception as own:
                ticket.error, ticket.left = own, True

    def _end(self, tickets: list[Ticket], tokens: int, seconds: float) -> None:
        with self._changed:
            self.waiting_tokens -= tokens
            self.speed += NEWEST * (tokens / max(seconds, 1e-6) - self.speed)
        for ticket in tickets:
            if ticket.left or len(ticket.found) == len(ticket.rows):
                ticket.ended_at = time.monotonic()
                ticket.done.set()
