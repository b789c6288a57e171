"""PostgreSQL is killed while the web server writes: what was accepted is there, and a key answers the same again."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from training.tests.conftest import BASE_DIR, tiny, until
from work.tests.postgres import PROGRAMS, ThrowawayPostgres

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not (PROGRAMS / "initdb").exists(), reason="it needs PostgreSQL's programs"),
    pytest.mark.skipif("DATABASE_URL" in os.environ, reason="it brings its own database, so once is enough"),
]
Answer = tuple[int, Any]


class Site:
    """The web server as a process of its own, and one person who asks it."""

    def __init__(self, database: ThrowawayPostgres, home: Path) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.environment = {
            **os.environ,
            "DATABASE_URL": database.url,
            "REDIS_URL": f"unix://{home / 'nothing.sock'}",
            "DATA_DIR": str(home / "data"),
            "RESULTS_DIR": str(home / "results"),
            "SAMPLES": "false",
            "DJANGO_SUPERUSER_PASSWORD": "correct-horse-9",
            "PORT": str(self.port),
            "THROTTLE_TRAIN": "off",
        }
        self.token = ""

    def manage(self, *line: str) -> subprocess.Popen[bytes]:
        program = [sys.executable, "manage.py", *line]
        return subprocess.Popen(program, cwd=BASE_DIR, env=self.environment, stdout=subprocess.DEVNULL)

    def fetch(self, path: str, body: Any = None, **headers: str) -> Answer:
        """Status and body; (0, None) where the connection breaks."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        request.data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if "Content-Type" not in headers:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def train(self, key: str) -> Answer:
        return self.fetch("/api/train", tiny(key), **{"Idempotency-Key": key})

    def accepted(self, key: str) -> str:
        """The run that this key made, asked for until it is accepted, as a client does."""
        end = time.monotonic() + 60
        while (answer := self.train(key))[0] != 202:
            assert time.monotonic() < end, f"{key}: {answer}"
            time.sleep(0.1)
        return str(answer[1]["task_id"])

    def sign_in_and_upload(self, file: Path) -> None:
        who = {"username": "admin", "password": "correct-horse-9"}
        self.token = self.fetch("/api/login", who)[1]["access"]
        form = (
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\ntweets\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="tweets.csv"\r\n\r\n'
            + file.read_bytes()
            + b"\r\n--b--\r\n"
        )
        status, _body = self.fetch("/api/datasets", form, **{"Content-Type": "multipart/form-data; boundary=b"})
        assert status == 201


@pytest.fixture
def database() -> Iterator[ThrowawayPostgres]:
    with ThrowawayPostgres() as server:
        yield server


@pytest.fixture
def site(database: ThrowawayPostgres, tmp_path: Path, tweets_csv: Path) -> Iterator[Site]:
    site = Site(database, tmp_path)
    for line in ("migrate", "first_start"):
        assert site.manage(line).wait(60) == 0
    web = site.manage("web")
    try:
        until(lambda: site.fetch("/healthz")[0] == 200, what="the web server answers")
        site.sign_in_and_upload(tweets_csv)
        yield site
    finally:
        web.terminate()
        web.wait(60)


def test_no_accepted_run_is_lost_and_each_key_answers_the_same(site: Site, database: ThrowawayPostgres) -> None:
    before = site.accepted("before")
    status, answer = killed_inside_a_transaction(site, database)
    assert status in (500, 503) and answer["detail"], "it was not accepted, and the error says so"
    database.start()
    assert site.accepted("before") == before
    inside = site.accepted("inside")
    assert inside == site.accepted("inside") != before
    answers = killed_amid_many_submits(site, database)
    database.start()
    runs = {key: site.accepted(key) for key in answers}
    assert {key: body["task_id"] for key, (status, body) in answers.items() if status == 202}.items() <= runs.items()
    assert tasks_in(database) == {before, inside, *runs.values()}


def killed_inside_a_transaction(site: Site, database: ThrowawayPostgres) -> Answer:
    """The submit has written its experiment and waits for the table of tasks when its server dies."""
    with ThreadPoolExecutor(1) as threads, database.connect() as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE training_task IN SHARE MODE")
        answer = threads.submit(site.train, "inside")
        with database.connect() as looks:
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_xid IS NOT NULL"
            until(lambda: looks.execute(waits).fetchone(), what="the submit is inside its transaction")
        database.kill()
        other.close()
        return answer.result()


def killed_amid_many_submits(site: Site, database: ThrowawayPostgres, count: int = 24) -> dict[str, Answer]:
    """Three clients submit; the server dies after the eighth answer, whatever the others are at."""
    answers: dict[str, Answer] = {}
    eighth = threading.Event()

    def submit(key: str) -> None:
        answers[key] = site.train(key)
        if len(answers) == 8:
            eighth.set()

    with ThreadPoolExecutor(3) as threads:
        for number in range(count):
            threads.submit(submit, f"run-{number}")
        assert eighth.wait(60)
        database.kill()
    assert {status for status, _body in answers.values()} > {202}, "some were refused"
    return answers


def tasks_in(database: ThrowawayPostgres) -> set[str]:
    with database.connect() as connection:
        return {str(row[0]) for row in connection.execute("SELECT id FROM training_task")}
