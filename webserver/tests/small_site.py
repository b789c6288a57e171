"""A server of a few lines for the tests: its deadlines are short unless told, and its addresses do what a test needs.

python -m webserver.tests.small_site PORT FOLDER [SECONDS]
"""

import hashlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from webserver import Deadlines, Head, Site, serve

LIMIT = 100_000
LARGE = 80_000_000
LINGER = 40_000_000


def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    refused = environ["webserver.refused"]
    status = "413 Content Too Large" if refused == "too_large" else "503 Busy" if refused else "200 OK"
    if path == "/panic":
        raise BaseException("no Exception")
    if path == "/wait":
        time.sleep(1.5)
    if path == "/large":
        start_response(status, [("Content-Length", "50000000")])
        return environ["wsgi.file_wrapper"](io.BytesIO(bytes(50_000_000)))
    body = refused or describe_request(path, environ)
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]


def describe_request(path: str, environ: dict[str, Any]) -> str:
    if path == "/pid":
        return str(os.getpid())
    if path == "/memory":
        return str(psutil.Process().memory_info().rss)
    if path == "/scheme":
        return str(environ["wsgi.url_scheme"])
    digest = hashlib.file_digest(environ["wsgi.input"], "sha256")
    return f"{environ.get('CONTENT_LENGTH', '')} {digest.hexdigest()}"


def lane_of(head: Head) -> str:
    return "slow" if head.path in ("/wait", "/large") else "quick"


def main() -> None:
    port, folder, *seconds = sys.argv[1:]
    wait = float(seconds[0]) if seconds else 1
    serve(
        Site(
            load=lambda: answer,
            address=f"127.0.0.1:{port}",
            name="small-site",
            lanes={"quick": 1, "slow": 1},
            lane_of=lane_of,
            body_limit=lambda head: LARGE if head.path == "/upload" else LIMIT,
            folder=Path(folder),
            folder_bytes=LARGE + LIMIT,
            linger_bytes=LINGER,
            deadlines=Deadlines(head=wait, body=wait, body_rate=1_000_000, idle=wait, send=2 * wait, linger=2 * wait),
            connections=80,
        )
    )


if __name__ == "__main__":
    main()
