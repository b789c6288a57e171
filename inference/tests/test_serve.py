"""`manage.py serve` as a process, over HTTP."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

pytestmark = [pytest.mark.process, pytest.mark.django_db(transaction=True)]


def environment(port: int) -> dict[str, str]:
    database = connection.settings_dict
    url = f"sqlite:///{database['NAME']}"
    if connection.vendor != "sqlite":
        address = f"{database['HOST'] or 'localhost'}:{database['PORT'] or 5432}"
        url = f"postgresql://{database['USER']}:{database['PASSWORD']}@{address}/{database['NAME']}"
    folders = {"DATA_DIR": str(settings.DATA_DIR), "RESULTS_DIR": str(settings.RESULTS_DIR)}
    return os.environ | folders | {"DATABASE_URL": url, "SERVE_PORT": str(port)}


def start_serve(port: int, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "serve", *arguments]
    return subprocess.Popen(command, env=environment(port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def serving(port: int, *arguments: str, ends_on: int = signal.SIGTERM) -> Iterator[None]:
    """A server that has answered; it ends with status 0 on the signal."""
    process = start_serve(port, *arguments)
    end = time.monotonic() + 90
    while not fetch(port, "/health")[0]:
        assert process.poll() is None and time.monotonic() < end, process.stdout and process.stdout.read()
        time.sleep(0.2)
    try:
        yield
    finally:
        process.send_signal(ends_on)
        assert process.wait(60) == 0


@pytest.fixture
def served(model: Any, port: int) -> Iterator[int]:
    with serving(port, "--exp", "small"):
        yield port


def fetch(port: int, path: str, body: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        assert error.headers["Content-Type"] == "application/problem+json"
        return error.code, json.load(error)
    except OSError:
        return 0, None


REFUSED = {
    b"": 400, b"{": 400, b"[]": 400, b"{}": 400, b'{"text": ""}': 400, b'{"text": 3}': 400, b'{"texts": "a"}': 400,
    b'{"texts": null}': 400, b'{"text": "a", "texts": ["a"]}': 400, b'{"text": "\\ud800"}': 400, b"\xff": 400,
    b'{"text": "a", "model": "other"}': 404, b'{"text": "a", "model": {}}': 400, b'{"text": "a", "modle": "small"}': 400,
    b'{"text": "a", "model": ["small"]}': 400, b" " * (settings.API_BODY_LIMIT + 1): 413,
}  # fmt: skip


def test_server_predicts_and_explains_what_it_refuses(served, model, capsys):
    health = fetch(served, "/health")[1]
    assert health.pop("in_memory")["base_models"] == [model.base_model]
    assert health == {"status": "ok", "model": "small", "base_model": model.base_model, "models": ["small"]}
    call_command("predict_health", "--port", str(served))
    assert capsys.readouterr().out.startswith("ok: small")
    status, answer = fetch(served, "/predict", b'{"text": "What a lovely day!"}')
    assert status == 200 and answer["language"] == "English" and answer["label_name"] in answer["probabilities"]
    status, answers = fetch(served, "/predict", json.dumps({"texts": ["a day", "好"]}).encode())
    assert status == 200 and len(answers) == 2
    for body, expected in REFUSED.items():
        status, problem = fetch(served, "/predict", body)
        assert (status, problem["status"]) == (expected, expected) and problem["title"] and problem["detail"], body[:40]
        assert problem["request_id"]
    assert fetch(served, "/predict")[0] == 405 and fetch(served, "/health", b"{}")[0] == 405
    assert fetch(served, "/")[0] == fetch(served, "/login/")[0] == fetch(served, "/api/predict", b"{}")[0] == 404
    assert fetch(served, "/healthz/")[1] == {"status": "ok"}
    assert fetch(served, "/readyz?only=database")[1]["ready"] is True


def test_slow_clients_and_predictions_hold_up_nobody(served):
    """More connections than there are threads, with half a head and with half a body, and more predictions."""
    connections: list[socket.socket] = []
    with ExitStack() as slow:
        for half in (b"GET /health HTTP/1.1\r\n", b"POST /predict HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"):
            for _ in range(40):
                connections.append(slow.enter_context(socket.create_connection(("127.0.0.1", served), timeout=10)))
                connections[-1].sendall(half)
        texts = json.dumps({"texts": [f"{number} lovely days " * 40 for number in range(64)]}).encode()
        with ThreadPoolExecutor(40) as pool:
            requests = [pool.submit(fetch, served, "/predict", texts) for _ in range(40)]
            assert fetch(served, "/healthz")[0] == 200
            # It waited neither for the predictions nor until the server closed the slow connections.
            assert not all(request.done() for request in requests)
            assert not select.select(connections, [], [], 0)[0]
            assert {answer.result()[0] for answer in requests} <= {200, 429}


def test_server_follows_what_is_trained_and_deleted(model, port):
    accuracy, model.accuracy = model.accuracy, None
    model.save()
    with serving(port, ends_on=signal.SIGINT):
        assert fetch(port, "/health")[0] == fetch(port, "/predict", b'{"text": "a"}')[0] == 503
        with pytest.raises(CommandError, match="503: There is no trained model yet"):
            call_command("predict_health", "--port", str(port))
        model.accuracy = accuracy
        model.save()
        assert fetch(port, "/health")[1]["model"] == fetch(port, "/predict", b'{"text": "a"}')[1]["model"] == "small"
        shutil.rmtree(model.final_model)
        assert fetch(port, "/health")[0] == 503 and fetch(port, "/predict", b'{"text": "a"}')[0] == 409
        model.delete()
        assert fetch(port, "/predict", b'{"text": "a", "model": "small"}')[0] == 404


def test_taken_port_and_unknown_experiment_are_reported_in_one_line(model, port):
    with socket.socket() as s:
        s.bind(("127.0.0.1", port))
        s.listen()
        taken = start_serve(port)
        output, _ = taken.communicate(timeout=60)
        assert taken.returncode == 1 and "can't be used" in output
    unknown = start_serve(port, "--exp", "nowhere")
    output, _ = unknown.communicate(timeout=60)
    assert unknown.returncode == 1 and "nowhere has left no model" in output


def test_missing_database_is_reported_in_one_line(port, tmp_path):
    nothing = environment(port) | {"DATABASE_URL": f"sqlite:///{tmp_path / 'nothing.sqlite3'}"}
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "serve"]
    ended = subprocess.run(command, env=nothing, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "make start" in ended.stderr and "Traceback" not in ended.stderr


def test_health_without_a_server_explains_how_to_start_one(port):
    with pytest.raises(CommandError, match="make serve"):
        call_command("predict_health", "--port", str(port))


def test_predict_command_prints_the_answer_and_nothing_else(model, admin, port):
    admin.is_superuser = True
    admin.save()
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "predict", "--json", "--text", "a day"]
    ended = subprocess.run(command, env=environment(port), capture_output=True, text=True, timeout=120)
    assert json.loads(ended.stdout)["model"] == "small" and ended.stderr == ""
