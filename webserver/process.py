"""The processes: gunicorn's parent, and in its worker one thread that receives and sends for all connections."""

import ipaddress
import os
import resource
import socket
import time
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.config import Config
from gunicorn.workers.base import Worker
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from .channel import Channel
from .lanes import Lanes
from .loop import Loop
from .request import Request
from .site import HEAD_BYTES, Site, WSGIApplication

GRACE_SECONDS = 5
TIDY_SECONDS = 0.5
FILES = 8192  # open files: each connection may need a socket and two temporary files


class Process(BaseApplication):
    """gunicorn's application: its settings, and how it loads ours in each worker."""

    def __init__(self, site: Site) -> None:
        self.site = site
        super().__init__()

    def load_config(self) -> None:
        for name, value in {
            "bind": self.site.address,
            "workers": 1,  # so that a model is loaded once and shared by all requests
            "worker_class": Receiver,
            "timeout": self.site.stall_seconds,
            "graceful_timeout": GRACE_SECONDS,
            "backlog": 2048,
            "control_socket_disable": True,
            "proc_name": self.site.name,
            "loglevel": self.site.log_level,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        return self.site.load()


class Server(TcpWSGIServer):
    """waitress's server on a port that gunicorn has opened, with our loop, lanes and limits."""

    channel_class = Channel

    def __init__(
        self, site: Site, cfg: Config, application: WSGIApplication, listener: socket.socket, loop: Loop
    ) -> None:
        self.site = site
        self.cfg = cfg
        self.loop = loop
        self.tidy_due_at = 0.0
        adjustments = Adjustments(
            max_request_header_size=HEAD_BYTES,
            max_request_body_size=1 << 62,  # Request decides, by the address
            recv_bytes=32 * 1024,
            # At its own limit waitress stops accepting. `tidy` makes room at ours before that, once per turn of the loop.
            connection_limit=site.connections + 100,
            clear_untrusted_proxy_headers=False,  # the application knows how many proxies are ours
            log_socket_errors=False,
            ident=None,
        )
        family = (listener.family, listener.type, listener.proto, listener.getsockname())
        lanes = Lanes(site)
        super().__init__(application, loop.sockets, True, listener, lanes, adjustments, family, bind_socket=False)

    def pull_trigger(self) -> None:
        """Wake the loop. A thread that answers calls this when its connection waits for something else than before."""
        self.loop.changed.append(self.loop.serving.channel)
        super().pull_trigger()

    def maintenance(self, now: float) -> None:
        """Do nothing. waitress calls this while it iterates over the connections; closing one there mixes up their numbers."""

    def tidy(self) -> None:
        """Close overdue connections and, when there are too many, the one that was silent longest."""
        if len(self.active_channels) >= self.site.connections:
            waiting = [channel for channel in self.active_channels.values() if not channel.requests]
            if waiting:
                min(waiting, key=lambda channel: channel.last_activity).expire()
        if time.monotonic() >= self.tidy_due_at:
            self.tidy_due_at = time.monotonic() + TIDY_SECONDS
            for channel in list(self.active_channels.values()):
                if channel.is_overdue():
                    channel.expire()

    def has_room_for(self, request: Request) -> bool:
        """Return whether the request's body fits on the disk together with all others that are arriving or waiting."""
        reserved = request.reserved
        for channel in self.active_channels.values():
            for other in (channel.request, *channel.requests):
                if other is not None and other is not request:
                    reserved += other.reserved
        return reserved <= self.site.folder_bytes

    def scheme_of(self, environ: dict[str, Any]) -> str:
        """Return https where a proxy on an address of gunicorn's forwarded_allow_ips (loopback) says so, else http."""
        is_trusted = "*" in self.cfg.forwarded_allow_ips
        if not is_trusted:
            address = ipaddress.ip_address(environ["REMOTE_ADDR"])
            is_trusted = any(address in network for network in self.cfg.forwarded_allow_networks())
        https_headers = self.cfg.secure_scheme_headers.items()
        says_https = any(environ.get("HTTP_" + name.replace("-", "_")) == value for name, value in https_headers)
        return "https" if is_trusted and says_https else "http"

    @property
    def is_busy(self) -> bool:
        return any(channel.requests or channel.total_outbufs_len for channel in self.active_channels.values())


class Receiver(Worker):
    """gunicorn's worker: the receiving thread."""

    def run(self) -> None:
        """Serve until gunicorn asks to stop or its parent process has died, then answer what is here within the grace."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < needed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

        loop = Loop({})
        waker = Waker(self.PIPE[0], loop.sockets)
        server = Server(self.app.site, self.cfg, self.wsgi, self.sockets[0].sock, loop)
        loop.changed.extend((waker, server, server.trigger))
        while self.alive and self.ppid == os.getppid():
            server.tidy()
            self.notify()
            loop.turn(TIDY_SECONDS)

        deadline = time.monotonic() + GRACE_SECONDS - 1  # a second before gunicorn kills this process
        server.accepting = False
        loop.changed.append(server)
        while server.is_busy and time.monotonic() < deadline:
            self.notify()
            loop.turn(0.1)
        server.task_dispatcher.shutdown(max(0.1, deadline - time.monotonic()))


class Waker(wasyncore.file_dispatcher):
    """End the loop's wait when a signal arrives: gunicorn's signal handler writes to this pipe."""

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.recv(4096)
