"""A queue of texts to predict. One thread owns it and does all computing; callers put rows in and wait.

A batch takes waiting rows of the same base model, whoever their caller is, as long as its tokens fit the budget. Work that could not be
done soon is refused at once instead of kept waiting, and rows of callers that gave up are skipped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Event, Thread

from engine.serve.batch import BatchModel, BatchRow, RowOutput
from engine.serve.errors import BusyError

INITIAL_SPEED = 2000.0  # tokens a second, until there is a measurement
NEWEST_WEIGHT = 0.3  # of the newest measurement in the moving average


@dataclass(slots=True, eq=False)
class PendingRequest:
    """The rows that one caller waits for."""

    model: BatchModel
    rows: list[BatchRow]
    queued_at: float
    output_of_row: dict[int, RowOutput] = field(default_factory=dict)
    started_at: float = 0.0
    ended_at: float = 0.0
    abandoned: bool = False  # the caller gave up, or one of its rows failed
    error: Exception | None = None
    done: Event = field(default_factory=Event)

    @property
    def outputs(self) -> list[RowOutput]:
        """Return the outputs in the order of the rows, once the request is done."""
        return [self.output_of_row[i] for i in range(len(self.rows))]


QueuedRow = tuple[PendingRequest, int]  # a request and the index of one of its rows


class BatchingQueue:
    """Computes rows of many callers in common batches.

    budget: tokens of a batch. patience: seconds of work that may be waiting before callers are refused.
    before_batch: called by the thread that computes, before each batch.
    """

    def __init__(self, budget: int, patience: float, before_batch: Callable[[], None] = lambda: None) -> None:
        self.budget = budget
        self.patience = patience
        self.before_batch = before_batch
        self.speed = INITIAL_SPEED
        self.waiting_tokens = 0
        self._waiting: deque[QueuedRow] = deque()
        self._changed = Condition()
        self._owner: Thread | None = None

    def compute(self, model: BatchModel, rows: list[BatchRow], timeout: float) -> PendingRequest:
        """Wait for the outputs of all rows. Raises BusyError if too much is waiting already, or after `timeout` seconds."""
        request = PendingRequest(model, rows, time.monotonic())
        with self._changed:
            if self.seconds_waiting > self.patience:
                raise BusyError("More texts are waiting than can be answered soon.", self.seconds_waiting)
            self._waiting.extend((request, i) for i in range(len(rows)))
            self.waiting_tokens += sum(len(row.ids) for row in rows)
            if self._owner is None:  # only now: a process that forks before its first request would lose the thread
                self._owner = Thread(target=self._run, name="predictions", daemon=True)
                self._owner.start()
            self._changed.notify()
        if not request.done.wait(timeout):
            request.abandoned = True
            raise BusyError("The prediction took too long and was abandoned.", self.seconds_waiting)
        if request.error is not None:
            raise request.error
        return request

    @property
    def seconds_waiting(self) -> float:
        """Return the seconds of work that are waiting, at the latest speed."""
        return self.waiting_tokens / self.speed

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                batch = self._take_batch()
            self.before_batch()
            self._answer(batch)

    def _take_batch(self) -> list[QueuedRow]:
        """Take the oldest rows of the oldest request's model that fit together; the others keep their order."""
        batch: list[QueuedRow] = []
        skipped: list[QueuedRow] = []
        tokens = 0
        while self._waiting:
            request, i = self._waiting.popleft()
            size = len(request.rows[i].ids)
            if request.abandoned:
                self.waiting_tokens -= size
            elif batch and request.model is not batch[0][0].model:
                skipped.append((request, i))
            elif batch and tokens + size > self.budget:
                skipped.append((request, i))
                break
            else:
                batch.append((request, i))
                tokens += size
        self._waiting.extendleft(reversed(skipped))
        return batch

    def _answer(self, batch: list[QueuedRow]) -> None:
        """Compute a batch, and wake the callers whose rows are all done."""
        started = time.monotonic()
        requests = list(dict.fromkeys(request for request, _i in batch))
        for request in requests:
            request.started_at = request.started_at or started
        try:
            self._compute(batch)
        except Exception as error:
            # Compute each caller's rows alone, so that one bad request fails no other one.
            for request in requests:
                try:
                    if len(requests) == 1:
                        raise error
                    self._compute([(other, i) for other, i in batch if other is request])
                except Exception as own_error:
                    request.error = own_error
                    request.abandoned = True
        tokens = sum(len(request.rows[i].ids) for request, i in batch)
        seconds = time.monotonic() - started
        with self._changed:
            self.waiting_tokens -= tokens
            self.speed += NEWEST_WEIGHT * (tokens / max(seconds, 1e-6) - self.speed)
        for request in requests:
            if request.abandoned or len(request.output_of_row) == len(request.rows):
                request.ended_at = time.monotonic()
                request.done.set()

    def _compute(self, batch: list[QueuedRow]) -> None:
        """Compute rows of one base model and give each output to its request."""
        model = batch[0][0].model
        outputs = model.outputs([request.rows[i] for request, i in batch])
        for (request, i), output in zip(batch, outputs, strict=True):
            request.output_of_row[i] = output
