"""Slow, silent and greedy clients do not disturb others. Against the web server as it is started."""

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lorasite.web_server import lane_of
from testing.site import PASSWORD, running_web
from webserver import Head

SLOW, UPLOADS, POLLERS = 30, 16, 100
ROUNDS = 10  # take a few seconds; the uploads take longer, so that they run all the time


def call(site: str, path: str, token: str = "", body: bytes | None = None, kind: str = "application/json") -> int:
    headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(site + path, body, headers), timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def sign_in(site: str) -> str:
    body = json.dumps({"username": "root", "password": PASSWORD}).encode()
    request = urllib.request.Request(f"{site}/api/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["access"])


def upload(site: str, token: str, number: int) -> int:
    rows = "".join(f"row {n} of file {number} is {'good' if n % 2 else 'bad'},{n % 2}\n" for n in range(14_000))
    body = (
        f'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nfile-{number}\r\n'
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\ntext,label\n{rows}\r\n--b--\r\n'
    ).encode()
    assert 380_000 < len(body) < 512 * 1024  # read at once, not by the queue
    return call(site, "/api/datasets", token, body, "multipart/form-data; boundary=b")


@contextmanager
def slow_clients(site: str, number: int) -> Iterator[None]:
    """Open connections that never finish their headers, and as many that never finish their body."""
    host, _colon, port = site.removeprefix("http://").partition(":")
    with ExitStack() as connections:
        form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\na"
        for half in (f"GET /login/ HTTP/1.1\r\nHost: {host}\r\n", f"POST /login/ HTTP/1.1\r\nHost: {host}\r\n{form}"):
            for _ in range(number):
                connection = connections.enter_context(socket.create_connection((host, int(port)), timeout=10))
                connection.sendall(half.encode())
        yield


def seconds(request: Callable[[], int]) -> float:
    started = time.monotonic()
    assert request() == 200
    return time.monotonic() - started


@pytest.mark.process
def test_health_and_pages_answer_beside_slow_clients_uploads_and_pollers(tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(UPLOADS + POLLERS) as pool,
        running_web(tmp_path, THROTTLE_UPLOAD="off") as (site, _said),
        slow_clients(site, SLOW),
    ):
        token, ended = sign_in(site), threading.Event()

        def poll(connection: http.client.HTTPConnection) -> None:
            while not ended.wait(1):
                connection.request("GET", "/api/tasks", headers={"Authorization": f"Bearer {token}"})
                assert connection.getresponse().read()

        for _ in range(POLLERS):
            pool.submit(poll, http.client.HTTPConnection(site.removeprefix("http://"), timeout=30))
        uploads = [pool.submit(upload, site, token, number) for number in range(UPLOADS)]
        waits = []
        for _ in range(ROUNDS):
            waits += [seconds(lambda: call(site, "/healthz")), seconds(lambda: call(site, "/login/"))]
            time.sleep(0.2)
        ended.set()
        assert {sent.result() for sent in uploads if sent.done()} <= {201} and not all(sent.done() for sent in uploads)
    assert max(waits) < 8, waits  # Other tests share the cores; a lane that waits for another one takes ten seconds.


@pytest.mark.parametrize(
    ("method", "path", "headers", "lane"),
    [
        ("GET", "/healthz", {}, "alive"),
        ("POST", "/healthz", {}, "pages"),
        ("GET", "/readyz", {}, "probes"),
        ("GET", "/metrics", {}, "probes"),
        ("GET", "/runs/1/", {"HX_REQUEST": "true"}, "polls"),
        ("GET", "/runs/1/", {}, "pages"),
        ("GET", "/api/task/1", {}, "polls"),
        ("POST", "/api/datasets", {}, "uploads"),
        ("POST", "/datasets/new/", {}, "uploads"),
        ("GET", "/datasets/new/", {}, "pages"),
        ("POST", "/api/predict", {}, "predictions"),
        ("POST", "/predict/", {}, "predictions"),
        ("GET", "/models/recommend/", {}, "predictions"),
        ("POST", "/login/", {}, "sign-ins"),
        ("POST", "/api/train", {}, "pages"),
    ],
)
def test_request_goes_to_the_lane_of_its_kind(method: str, path: str, headers: dict[str, str], lane: str) -> None:
    assert lane_of(Head(method, path, headers)) == lane


@pytest.mark.process
def test_body_over_the_limit_is_refused_with_an_explanation_everywhere(tmp_path: Path) -> None:
    form, large = "multipart/form-data; boundary=b", bytes(5_000_000)
    with running_web(tmp_path, UPLOAD_LIMIT_MB="1") as (site, _said):
        assert call(site, "/api/datasets", "", large, form) == 413
        assert call(site, "/datasets/new/", "", large, form) in (413, 302)
        assert call(site, "/login/", "", large, form) == 413
        assert call(site, "/login/", "", large, "application/x-www-form-urlencoded") == 413
        assert call(site, "/api/predict", "", large) == 413


@pytest.mark.django_db
@pytest.mark.parametrize(("reason", "status", "code"), [("busy", 503, "busy"), ("disk_full", 507, "disk_full")])
def test_body_that_the_server_refused_is_answered_with_an_explanation(
    client, reason: str, status: int, code: str
) -> None:
    answer = client.post("/api/datasets", **{"webserver.refused": reason})
    assert (answer.status_code, answer.json()["code"]) == (status, code) and answer["X-API-Version"] == "1"
    assert (
        answer.headers.get("Retry-After", "10") == "10"
        and client.post("/login/", **{"webserver.refused": reason}).status_code == status
    )


@pytest.mark.slow
def test_large_upload_that_is_refused_gets_its_answer(tmp_path: Path, redis_server: str) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n%b\r\n--b--\r\n'
    kind = "multipart/form-data; boundary=b"
    body = form % bytes(20_000_000)
    with running_web(tmp_path, THROTTLE_UPLOAD="1/minute", REDIS_URL=redis_server) as (site, _):
        token = sign_in(site)
        assert call(site, "/api/datasets", "", body, kind) == 401
        assert call(site, "/api/datasets", token, body, "text/csv") == 413  # only a form may be this large
        call(site, "/api/datasets", token, form % b"", kind)
        assert call(site, "/api/datasets", token, body, kind) == 429
