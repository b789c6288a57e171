"""`manage.py start` as a process tree: its start, its end, and what it survives."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings

from testing.site import PASSWORD, free_port, running_site

pytestmark = pytest.mark.process
MANAGE = str(Path(settings.BASE_DIR) / "manage.py")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    with running_site(tmp_path) as address:
        yield address


def start(folder: Path, port: int, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PORT": str(port), "DATA_DIR": str(folder / "data"), "SAMPLES": "0", **environment}
    return subprocess.run([sys.executable, MANAGE, "start"], env=env, capture_output=True, text=True, timeout=240)


def children() -> dict[str, psutil.Process]:
    """Return the site's processes by kind. The supervisor is this test's only child that runs `start`."""
    supervisor = next(p for p in psutil.Process().children() if "start" in p.cmdline())
    kinds = {
        "redis": "valkey",
        "data worker": "--data",
        "export worker": "--exports",
        "worker": "worker",
        "web": "start",
    }
    processes = {"supervisor": supervisor}
    for child in supervisor.children():
        line = " ".join(child.cmdline())
        processes.setdefault(next(kind for kind, word in kinds.items() if word in line), child)
    return processes


def eventually(fact: Callable[[], Any], limit: float = 40) -> Any:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            if result := fact():
                return result
        except (OSError, StopIteration, psutil.Error):
            pass
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def call(address: str, path: str, body: Any = None, token: str = "") -> Any:
    request = urllib.request.Request(address + path, json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def sign_in(address: str) -> str:
    return str(call(address, "/api/login", {"username": "root", "password": PASSWORD})["access"])


def test_second_start_on_the_same_data_is_reported_in_one_line_and_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    with running_site(tmp_path):
        tree = eventually(lambda: len(processes := children()) == 6 and processes)
        second = start(tmp_path, free_port())
        tree["supervisor"].send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(tree.values(), timeout=40)
    assert not alive
    assert second.returncode == 1
    assert "already runs" in second.stderr and len(second.stderr.strip().splitlines()) == 1


def test_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells children of their parent's death")
    with running_site(tmp_path):
        tree = eventually(lambda: len(processes := children()) == 6 and processes)
        tree["supervisor"].kill()
        _, alive = psutil.wait_procs(tree.values(), timeout=40)
    assert not alive


def test_dead_child_is_started_again(site: str) -> None:
    for kind in ("redis", "worker", "data worker", "export worker", "web"):
        first = eventually(lambda: children()[kind] if len(children()) == 6 else None)  # noqa: B023  # called at once
        first.kill()
        eventually(lambda: (again := children().get(kind)) and again.pid != first.pid)  # noqa: B023
        eventually(lambda: sign_in(site))


def test_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = start(tmp_path, taken.getsockname()[1])
    assert ended.returncode == 1
    assert "can't be used" in ended.stderr and len(ended.stderr.strip().splitlines()) == 1


def test_first_start_creates_samples_and_the_second_still_has_them(tmp_path: Path) -> None:
    """The upload follows the reading of samples: a web server forked from that process would hang in polars."""
    with running_site(tmp_path, is_first_start=True, SAMPLES="1") as site:
        token = sign_in(site)
        names = {d["name"] for d in call(site, "/api/datasets", token=token)["results"]}
        runs = call(site, "/api/experiments", token=token)["results"]
        assert names == {"tweets-en", "reviews-zh", "orders"} and len(runs) == 1
        assert upload(site, token) == 201
    with running_site(tmp_path) as site:
        token = sign_in(site)
        assert len(call(site, "/api/datasets", token=token)["results"]) == 4
        task = runs[0]["task_id"]
        eventually(lambda: call(site, f"/api/task/{task}", token=token)["status"] in ("STARTED", "SUCCESS"), 60)


def upload(site: str, token: str) -> int:
    rows = "text,label\n" + "".join(f"row {i} is {'good' if i % 2 else 'bad'},{i % 2}\n" for i in range(40))
    body = (
        '--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nmine\r\n'
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n{rows}\r\n--b--\r\n'
    )
    request = urllib.request.Request(site + "/api/datasets", body.encode())
    request.add_header("Content-Type", "multipart/form-data; boundary=b")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.status)
