"""Threads by kind of work, so that one kind never waits behind another."""

import time

from waitress.task import ThreadedTaskDispatcher

from .channel import Channel
from .site import Site


class Lanes:
    """waitress's dispatcher, once per lane."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.lanes: dict[str, ThreadedTaskDispatcher] = {}
        for name, threads in site.lanes.items():
            self.lanes[name] = ThreadedTaskDispatcher()
            self.lanes[name].set_thread_count(threads)

    def add_task(self, channel: Channel) -> None:
        """Queue a connection whose first request is complete. The first lane answers broken requests, too."""
        request = channel.requests[0]
        name = next(iter(self.lanes)) if request.error else self.site.lane_of(request.head)
        self.lanes[name].add_task(channel)

    def shutdown(self, seconds: float) -> None:
        """Let the threads end; requests that still run when the time is over are cut off with the process."""
        deadline = time.monotonic() + seconds
        for lane in self.lanes.values():
            lane.shutdown(timeout=max(0.0, deadline - time.monotonic()))
