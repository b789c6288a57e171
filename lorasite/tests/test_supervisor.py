"""The delay before a dead child is started again."""

import time

import pytest

from lorasite.supervisor import BACKOFF_LIMIT, STEADY, Child


def wait_after(child: Child, lived: float) -> float:
    """Return the seconds until the child may start again, after it lived for `lived` seconds."""
    now = time.monotonic()
    child.pid, child.started = 1, now - lived
    child.schedule_restart(-9)
    return max(0.0, child.due - now)


def test_child_that_keeps_failing_waits_longer_each_time_and_a_steady_one_restarts_at_once() -> None:
    child = Child("web", run=lambda: None)
    waits = [wait_after(child, lived=1) for _ in range(7)]
    assert waits == pytest.approx([1, 2, 4, 8, 16, BACKOFF_LIMIT, BACKOFF_LIMIT], abs=0.1)
    assert wait_after(child, lived=STEADY + 1) == pytest.approx(0, abs=0.1)
    assert wait_after(child, lived=1) == pytest.approx(1, abs=0.1)
