"""The processes: gunicorn's parent, and in its worker one thread that receives and sends for all connections."""

import ipaddress
import os
import resource
import socket
import time
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.workers.base import Worker
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from .channel import Channel
from .lanes import Lanes
from .loop import Loop
from .request import Request
from .site import HEAD_BYTES, Site

GRACE_SECONDS = 5
TIDY_SECONDS = 0.5
FILES = 8192  # open files: each connection may need a socket and two temporary files


class Process(BaseApplication):
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

    def load(self) -> Any:
        return self.site.load()


class Server(TcpWSGIServer):
    channel_class = Channel

    def __init__(self, site: Site, cfg: Any, application: Any, listener: socket.socket, loop: Loop) -> None:
        self.site, self.cfg, self.loop = site, cfg, loop
        self.due = 0.0
        adjustments = Adjustments(
            max_request_header_size=HEAD_BYTES,
            max_request_body_size=1 << 62,  # Request decides, by the address
            recv_bytes=32 * 1024,
            connection_limit=site.connections + 100,
            clear_untrusted_proxy_headers=False,  # the application knows how many proxies are ours
            log_socket_errors=False,
            ident=None,
        )
        family = (listener.family, listener.type, listener.proto, listener.getsockname())
        lanes = Lanes(site)
        super().__init__(application, loop.sockets, True, listener, lanes, adjustments, family, bind_socket=False)

    def pull_trigger(self) -> None:
        """Called by a thread that answers, when its connection waits for something else than before."""
        self.loop.changed.append(self.loop.serving.channel)
        super().pull_trigger()

    def maintenance(self, now: float) -> None:
        """waitress calls this while it goes through the connections; closing one there would mix up their numbers."""

    def tidy(self) -> None:
        """Close connections that are overdue, and the one that was silent longest when there are too many."""
        if len(self.active_channels) >= self.site.connections:
            waiting = [channel for channel in self.active_channels.values() if not channel.requests]
            if waiting:
                min(waiting, key=lambda channel: channel.last_activity).expire()
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + TIDY_SECONDS
            for channel in list(self.active_channels.values()):
                if channel.overdue():
                    channel.expire()

    def has_room_for(self, request: Request) -> bool:
        requests = [r for c in self.active_channels.values() for r in (c.request, *c.requests) if r is not None]
        reserved = sum(r.reserved for r in requests if r is not request)
        return reserved + request.reserved <= self.site.folder_bytes

    def scheme_of(self, environ: dict[str, Any]) -> str:
        """https where a proxy on an address of gunicorn's forwarded_allow_ips (loopback) says so."""
        if not self._trusts(environ["REMOTE_ADDR"]):
            return "http"
        https_headers = self.cfg.secure_scheme_headers.items()
        secure = any(environ.get("HTTP_" + name.replace("-", "_")) == value for name, value in https_headers)
        return "https" if secure else "http"

    def _trusts(self, address: str) -> bool:
        if "*" in self.cfg.forwarded_allow_ips:
            return True
        return any(ipaddress.ip_address(address) in network for network in self.cfg.forwarded_allow_networks())

    @property
    def busy(self) -> bool:
        return any(channel.requests or channel.total_outbufs_len for channel in self.active_channels.values())


class Receiver(Worker):
    """gunicorn's worker: the loop of the receiving thread."""

    def run(self) -> None:
        raise_file_limit()
        loop = Loop({})
        waker = Waker(self.PIPE[0], loop.sockets)
        server = Server(self.app.site, self.cfg, self.wsgi, self.sockets[0].sock, loop)
        loop.changed.extend((waker, server, server.trigger))
        while self.alive and self.ppid == os.getppid():
            server.tidy()
            self.notify()
            loop.turn(TIDY_SECONDS)
        self._finish(server)

    def _finish(self, server: Server) -> None:
        """Take nothing new; answer what is here, within gunicorn's grace."""
        deadline = time.monotonic() + GRACE_SECONDS - 1
        server.accepting = False
        server.loop.changed.append(server)
        while server.busy and time.monotonic() < deadline:
            self.notify()
            server.loop.turn(0.1)
        server.task_dispatcher.shutdown(max(0.1, deadline - time.monotonic()))


class Waker(wasyncore.file_dispatcher):
    """Ends the loop's sleep when a signal arrives."""

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self.recv(4096)


def raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
