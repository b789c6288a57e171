"""`manage.py serve` as a process, asked over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

pytestmark = [pytest.mark.process, pytest.mark.django_db(transaction=True)]


def environment(port: int) -> dict[str, str]:
    d = connection.settings_dict
    url = f"sqlite:///{d['NAME']}"
    if connection.vendor != "sqlite":
        url = f"postgresql://{d['USER']}:{d['PASSWORD']}@{d['HOST'] or 'localhost'}:{d['PORT'] or 5432}/{d['NAME']}"
    folders = {"DATA_DIR": str(settings.DATA_DIR), "RESULTS_DIR": str(settings.RESULTS_DIR)}
    return os.environ | folders | {"DATABASE_URL": url, "SERVE_PORT": str(port)}


def started(port: int, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "serve", *arguments]
    return subprocess.Popen(command, env=environment(port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture
def served(model: Any, port: int) -> Iterator[int]:
    """A server of the model `small`; ends with status 0 on SIGTERM."""
    process = started(port, "--exp", "small")
    end = time.monotonic() + 90
    while asked(port, "/health")[0] != 200:
        assert process.poll() is None and time.monotonic() < end, process.stdout and process.stdout.read()
        time.sleep(0.2)
    yield port
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def asked(port: int, path: str, body: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None


def test_server_answers_and_refuses_in_words(served, capsys):
    assert asked(served, "/health")[1]["model"] == "small"
    call_command("predict_health", "--port", str(served))
    assert capsys.readouterr().out.startswith("ok: small")
    status, answer = asked(served, "/predict", b'{"text": "What a lovely day!"}')
    assert status == 200 and answer["language"] == "English" and answer["label_name"] in answer["probabilities"]
    status, answers = asked(served, "/predict", json.dumps({"texts": ["a day", "好"]}).encode())
    assert status == 200 and len(answers) == 2
    refused = {
        b"": 400, b"{": 400, b"[]": 400, b"{}": 400, b'{"text": ""}': 400, b'{"text": 3}': 400, b'{"texts": "a"}': 400,
        b'{"text": "a", "model": "other"}': 404, b'{"text": "a", "model": {}}': 404, b" " * (2**20 + 1): 413,
    }  # fmt: skip
    for body, expected in refused.items():
        status, problem = asked(served, "/predict", body)
        assert (status, problem["status"]) == (expected, expected) and problem["title"], body[:40]
    assert asked(served, "/predict")[0] == 405 and asked(served, "/")[0] == 404


def test_taken_port_and_unknown_experiment_are_one_line_each(model, port):
    with socket.socket() as s:
        s.bind(("127.0.0.1", port))
        s.listen()
        taken = started(port)
        said, _ = taken.communicate(timeout=60)
        assert taken.returncode == 1 and "can't be used" in said
    unknown = started(port, "--exp", "nowhere")
    said, _ = unknown.communicate(timeout=60)
    assert unknown.returncode == 1 and "nowhere has left no model" in said


def test_health_of_no_server_says_how_to_start_one(port):
    with pytest.raises(CommandError, match="make serve"):
        call_command("predict_health", "--port", str(port))
