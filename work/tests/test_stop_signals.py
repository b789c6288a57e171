"""Requests to stop that come in the middle of what a worker writes."""

import os
import signal

import pytest
from rq.exceptions import StopRequested

from monitoring.models import Worker
from work.signals import worker_alive
from work.stop_signals import STOP_SIGNALS
from work.worker import reconcile_safely

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_request_to_stop_waits_until_a_round_of_reconciling_is_written(signum, monkeypatch):
    def stop(number, frame):
        raise StopRequested

    def stop_before_the_row_is_written(**kwargs):
        os.kill(os.getpid(), signum)
        seen.append("not interrupted")

    seen: list[str] = []
    handler_before = signal.signal(signum, stop)
    monkeypatch.setattr(worker_alive, "receivers", list(worker_alive.receivers))
    worker_alive.connect(stop_before_the_row_is_written)
    worker_alive.receivers.reverse()
    worker_alive.sender_receivers_cache.clear()
    try:
        with pytest.raises(StopRequested):
            reconcile_safely("cpu")
    finally:
        signal.signal(signum, handler_before)
    assert seen == ["not interrupted"]
    assert Worker.objects.filter(pid=os.getpid()).exists()
