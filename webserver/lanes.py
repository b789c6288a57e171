"""Threads by kind of work, so that one kind never waits behind another."""

import time
from typing import Any

from waitress.task import ThreadedTaskDispatcher

from .site import Site


class Lanes:
    """waitress's dispatcher, once per lane."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.lanes = {name: ThreadedTaskDispatcher() for name in site.lanes}
        for name, threads in site.lanes.items():
            self.lanes[name].set_thread_count(threads)

    def add_task(self, channel: Any) -> None:
        request = channel.requests[0]
        name = next(iter(self.lanes)) if request.error else self.site.lane_of(request.head)
        self.lanes[name].add_task(channel)

    def shutdown(self, seconds: float) -> None:
        """Let the threads end; requests that still run when the time is over are cut off with the process."""
        deadline = time.monotonic() + seconds
        for lane in self.lanes.values():
            lane.shutdown(timeout=max(0.0, deadline - time.monotonic()))
