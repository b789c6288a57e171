"""Clients that are slow, silent, greedy or broken, against a real process."""

import hashlib
import http.client
import itertools
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .small_site import LARGE, LIMIT, LINGER

pytestmark = pytest.mark.process
ROOT = Path(__file__).resolve().parent.parent.parent


class Running:
    def __init__(self, folder: Path, *arguments: str) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.folder = folder
        command = [sys.executable, "-m", "webserver.tests.small_site", str(self.port), str(folder), *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT)

    def fetch(self, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(sent)
        return connection


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionResetError:
        pass
    return received


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    with running_site(tmp_path / "bodies") as running:
        yield running


@pytest.fixture
def patient_site(tmp_path: Path) -> Iterator[Running]:
    """A server that closes no slow connection as long as a test takes."""
    with running_site(tmp_path / "bodies", "60") as running:
        yield running


@contextmanager
def running_site(folder: Path, *arguments: str) -> Iterator[Running]:
    folder.mkdir()
    running = Running(folder, *arguments)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                running.fetch("/")
                break
            except OSError:
                assert running.process.poll() is None and time.monotonic() < end
                time.sleep(0.05)
        yield running
    finally:
        running.process.terminate()
        assert running.process.wait(30) == 0


def head(length: int, path: str = "/", more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n".encode()


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", b""),
        (b"G", b"HTTP/1.1 408"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 408"),
        (head(1000) + b"x", b"HTTP/1.1 408"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", b"HTTP/1.1 408"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200"),
    ],
    ids=["silent", "first byte", "half a head", "half a body", "half a chunk", "idle after an answer"],
)
def test_connection_that_keeps_the_server_waiting_is_closed(site: Running, sent: bytes, answered: bytes) -> None:
    started = time.monotonic()
    received = receive_all(site.connect(sent))
    assert received.startswith(answered) and bool(received) == bool(answered)
    assert time.monotonic() - started > 0.9  # and `receive_all` gives up after 5 seconds without a byte


def test_bytes_that_drip_do_not_move_the_deadline(site: Running) -> None:
    for first, drop in ((b"GET / HTTP/1.1\r\n", b"A: b\r\n"), (head(1000), b"x")):
        connection, started = site.connect(first), time.monotonic()
        with pytest.raises(OSError):
            while True:
                connection.sendall(drop)
                time.sleep(0.1)
                assert time.monotonic() - started < 30
    assert site.fetch("/")[0] == 200


def test_body_that_arrives_at_the_expected_rate_is_never_late(site: Running) -> None:
    connection = site.connect(head(30_000_000, "/upload"))
    for _part in range(15):
        connection.sendall(bytes(2_000_000))
        time.sleep(0.1)
    assert receive_all(connection).startswith(b"HTTP/1.1 200")


def test_one_lane_never_waits_for_another(patient_site: Running) -> None:
    waiting = [threading.Thread(target=patient_site.fetch, args=("/wait",)) for _ in range(3)]
    with ExitStack() as slow:
        for _ in range(25):
            slow.enter_context(patient_site.connect(b"GET / HTTP/1.1\r\n"))
            slow.enter_context(patient_site.connect(head(1000) + b"x"))
        for thread in waiting:
            thread.start()
        time.sleep(0.2)
        assert patient_site.fetch("/")[0] == 200  # and not only after 60 seconds, when the slow connections are closed
        assert any(thread.is_alive() for thread in waiting)
    for thread in waiting:
        thread.join()


def test_silent_connections_make_room_when_there_are_too_many(patient_site: Running) -> None:
    with ExitStack() as silent:
        for _ in range(300):
            silent.enter_context(patient_site.connect())
        assert patient_site.fetch("/")[0] == 200  # long before the deadline closes any


def test_large_body_waits_on_disk_and_arrives_whole(site: Running) -> None:
    before = int(site.fetch("/memory")[1])
    body = bytes(range(256)) * 250_000
    connection = site.connect(head(len(body), "/upload") + body[:-1])
    time.sleep(0.2)
    assert int(site.fetch("/memory")[1]) - before < 20_000_000
    connection.sendall(body[-1:] + b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    received = receive_all(connection)
    assert (
        f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode() in received and received.count(b"HTTP/1.1 200") == 2
    )
    assert list(site.folder.iterdir()) == []


def test_chunks_are_one_body(site: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request("POST", "/upload", iter([b"a" * 70_000, b"b" * 90_000]), encode_chunked=True)
    expected = hashlib.sha256(b"a" * 70_000 + b"b" * 90_000).hexdigest()
    assert connection.getresponse().read().decode() == f"160000 {expected}"


def test_client_with_too_large_a_body_gets_the_answer(site: Running) -> None:
    assert site.fetch("/", bytes(3 * LIMIT)) == (413, "too_large")
    chunks = itertools.repeat(bytes(10_000), 30)
    assert site.fetch("/", chunks, **{"Transfer-Encoding": "chunked"}) == (413, "too_large")
    waits_for_leave = site.connect(head(LIMIT + 1, more="Expect: 100-continue\r\n"))
    assert receive_all(waits_for_leave).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("more", [{}, {"Transfer-Encoding": "chunked"}])
def test_client_that_reads_only_after_sending_200_times_the_limit_gets_the_answer(
    site: Running, more: dict[str, str]
) -> None:
    body = [bytes(100_000)] * 200 if more else bytes(200 * LIMIT)
    for _try in range(5):
        assert site.fetch("/", body, **more) == (413, "too_large")


def test_client_of_http_client_gets_the_answer_to_a_request_that_is_broken_before_its_body(site: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request("POST", "/", bytes(200 * LIMIT), {"A": "a" * 33_000})
    assert connection.getresponse().status == 431


def test_body_far_too_large_is_not_read_to_its_end(site: Running) -> None:
    connection = site.connect(head(10**15))
    with pytest.raises(OSError):
        for _ in range(3 * LINGER // LIMIT):
            connection.sendall(bytes(LIMIT))
    assert site.fetch("/")[0] == 200


def test_client_that_does_not_stop_sending_after_its_answer_is_cut_off(site: Running) -> None:
    connection, started = site.connect(head(10**15) + bytes(5 * LIMIT)), time.monotonic()
    with pytest.raises(OSError):
        while True:
            connection.sendall(b"x")
            time.sleep(0.1)
            assert time.monotonic() - started < 30
    assert time.monotonic() - started > 1.5


def test_large_bodies_together_have_a_limit(site: Running) -> None:
    with site.connect(head(LARGE, "/upload")):
        time.sleep(0.1)
        assert site.fetch("/upload", bytes(200_000)) == (503, "busy")
        assert site.fetch("/upload", bytes(90_000))[0] == 200  # stays in memory
    time.sleep(0.2)
    assert site.fetch("/upload", bytes(200_000))[0] == 200


def test_disk_that_cannot_store_a_body_is_reported(site: Running) -> None:
    site.folder.rmdir()
    assert site.fetch("/upload", bytes(200_000)) == (503, "disk_full")
    site.folder.mkdir()
    assert site.fetch("/upload", bytes(200_000))[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 33_000 + b"\r\n\r\n", b"431"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"a" * 5_000, b"400"),
    ],
)
def test_broken_request_is_refused(site: Running, sent: bytes, status: bytes) -> None:
    assert receive_all(site.connect(sent)).split()[1] == status


def test_slow_reader_holds_no_thread(site: Running) -> None:
    with site.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") as reader:
        reader.recv(100)
        assert site.fetch("/wait")[0] == 200  # the lane of /large has one thread
        time.sleep(2)
        assert len(receive_all(reader)) < 50_000_000


def test_panic_fails_its_request_alone(site: Running) -> None:
    pid = site.fetch("/pid")
    assert site.fetch("/panic")[0] == 500
    assert site.fetch("/pid") == pid


@pytest.mark.parametrize("path", ["/large", "/wait", "/"])
@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
def test_client_that_disconnects_before_its_answer_ends_nothing_else(site: Running, path: str, more: str) -> None:
    pid = site.fetch("/pid")
    for seconds in (0, 0.1, 0.4):
        connection = site.connect(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
        time.sleep(seconds)
        # Without lingering, the connection is reset: the server's next write fails, and so may the one after it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    time.sleep(1.6 if path == "/wait" else 0.3)
    assert site.fetch("/pid") == pid


def test_proxy_on_this_machine_may_say_https(site: Running) -> None:
    assert site.fetch("/scheme") == (200, "http")
    assert site.fetch("/scheme", **{"X-Forwarded-Proto": "https"}) == (200, "https")


def test_stop_finishes_requests_in_progress_and_waits_for_no_other(patient_site: Running) -> None:
    answers: list[Any] = []
    fetching = threading.Thread(target=lambda: answers.append(patient_site.fetch("/wait")))
    fetching.start()
    time.sleep(0.3)
    with patient_site.connect(b"GET / HTTP/1.1\r\n"), patient_site.connect():
        patient_site.process.send_signal(signal.SIGTERM)
        assert patient_site.process.wait(30) == 0
    fetching.join()
    assert answers[0][0] == 200
