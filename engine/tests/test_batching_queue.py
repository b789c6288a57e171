"""The queue of texts: batches, refusals, callers that give up, and models that fail."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from engine.serve.batch import BatchRow, RowOutput
from engine.serve.batching_queue import BatchingQueue
from engine.serve.errors import BusyError


class SlowModel:
    """Waits for `go` before it computes, remembers its batches, and fails on a row whose first id is `broken`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.broken = 0
        self.batches: list[list[int]] = []

    def outputs(self, rows: list[BatchRow]) -> list[RowOutput]:
        self.go.wait(60)
        self.batches.append([row.ids[0] for row in rows])
        if any(row.ids[0] == self.broken for row in rows):
            raise RuntimeError("broken")
        return [RowOutput(torch.tensor([float(row.ids[0])])) for row in rows]


def rows(*numbers: int, length: int = 1) -> list[BatchRow]:
    return [BatchRow([number] * length) for number in numbers]


def call_in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a thread; the list will hold what the call returns or raises."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.05)
    return thread, results


def test_too_much_work_is_refused_at_once_with_a_time_to_retry():
    queue, model = BatchingQueue(budget=100, patience=0.01), SlowModel()
    first, _results = call_in_thread(lambda: queue.compute(model, rows(1, length=90), 10))
    with pytest.raises(BusyError) as refused:
        queue.compute(model, rows(2), 10)  # while the model computes until it is told to go on
    assert refused.value.wait >= 1
    model.go.set()
    first.join()
    assert queue.compute(model, rows(3), 10).outputs[0].logits.item() == 3


def test_batches_fill_to_the_budget_in_order_and_never_mix_base_models():
    queue, model, other = BatchingQueue(budget=3, patience=60), SlowModel(), SlowModel()
    waiting = [call_in_thread(lambda: queue.compute(model, rows(0), 10))[0]]
    for computing, numbers in ((model, (1, 2)), (other, (7,)), (model, (3, 4))):
        waiting.append(call_in_thread(partial(queue.compute, computing, rows(*numbers), 10))[0])
    model.go.set()
    other.go.set()
    for thread in waiting:
        thread.join()
    assert model.batches == [[0], [1, 2, 3], [4]] and other.batches == [[7]]
    assert queue.waiting_tokens == 0


def test_rows_of_a_caller_that_gave_up_are_skipped_and_not_counted():
    queue, model = BatchingQueue(budget=10, patience=60), SlowModel()
    first, _results = call_in_thread(lambda: queue.compute(model, rows(1), 10))
    with pytest.raises(BusyError, match="too long"):
        queue.compute(model, rows(2), 0.01)
    model.go.set()
    first.join()
    assert queue.compute(model, rows(3), 10).outputs[0].logits.item() == 3
    assert model.batches == [[1], [3]] and queue.waiting_tokens == 0


def test_request_that_fails_fails_no_other_caller_of_its_batch():
    queue, model = BatchingQueue(budget=10, patience=60), SlowModel()
    model.broken = 2
    threads = [call_in_thread(partial(queue.compute, model, rows(n), 10)) for n in (5, 1, 2, 3)]
    model.go.set()
    for thread, _results in threads:
        thread.join()
    assert [isinstance(results[0], RuntimeError) for _thread, results in threads] == [False, False, True, False]
    assert queue.waiting_tokens == 0
