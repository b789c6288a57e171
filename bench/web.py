"""The web server beside the one before it, in turns: speed, memory, and what others notice of slow and greedy clients.

    python bench/web.py [--seconds 5] [--rounds 2]

`threads` is what the site ran on before: gunicorn with eight threads that read the requests themselves. `lanes` is webserver/.
Both serve the same site with the same data. Prints requests per second of a page and of an API poll with 8 and with 100
kept-alive clients, the CPU time of each request, the memory of the web process, and how long /healthz and a page take beside
30 half-open connections, 30 bodies that never end, 16 uploads of 400 KB and 100 pollers. All requests go to this machine.
"""

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")

from lorasite.tests.test_slow_clients import sign_in, slow_clients, upload
from testing import site as sites

THREADS_SERVER = """
import django; django.setup()
from gunicorn.app.base import BaseApplication
from lorasite.web_server import site
class Before(BaseApplication):
    def load_config(self):
        for name, value in {"bind": site().address, "workers": 1, "worker_class": "gthread", "threads": 8, "timeout": 120,
                            "graceful_timeout": 5, "control_socket_disable": True}.items():
            self.cfg.set(name, value)
    def load(self):
        return site().load()
Before().run()
"""
SERVERS = {"threads": THREADS_SERVER, "lanes": sites.SERVE}
PATIENCE = 10.0  # seconds; what takes longer counts as that
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    figures: dict[str, list[Figures]] = {name: [] for name in SERVERS}
    for _ in range(options.rounds):
        for name, program in SERVERS.items():
            figures[name].append(measure(program, options.seconds))
    before, now = ({k: statistics.median(r[k] for r in figures[name]) for k in figures[name][0]} for name in SERVERS)
    print(f"{'':50} {'threads':>9} {'lanes':>9}  ratio")
    for what, value in before.items():
        print(f"{what:50} {value:9.3g} {now[what]:9.3g}  {now[what] / value:5.2f}", flush=True)


def measure(program: str, seconds: float) -> Figures:
    sites.SERVE = program
    with tempfile.TemporaryDirectory() as folder, sites.running_web(Path(folder), THROTTLE_UPLOAD="off") as (site, _):
        token, figures = sign_in(site), Figures()
        for clients in (8, 100):
            for what, path in (("page", "/login/"), ("poll", "/api/tasks")):
                before = cpu_seconds()
                answers = speed(site, path, token, clients, seconds)
                figures[f"{what}, {clients} clients, requests/s"] = answers
                figures[f"{what}, {clients} clients, CPU ms/request"] = (
                    (cpu_seconds() - before) / (answers * seconds) * 1000
                )
        figures["memory, MiB"] = memory()
        with ThreadPoolExecutor(16) as pool, ExitStack() as attack:
            attack.enter_context(slow_clients(site, 30))
            figures |= noticed("slow clients", site, seconds)
            attack.close()
            settle(site)
            uploads = [pool.submit(tried, upload, site, token, number) for number in range(16)]
            figures |= noticed("16 uploads", site, seconds)
            attack.enter_context(slow_clients(site, 30))
            attack.enter_context(pollers(site, token, 100))
            figures |= noticed("all, with 100 pollers", site, seconds)
            attack.close()
            [sent.result() for sent in uploads]
        figures["memory after that, MiB"] = memory()
    return figures


def tried(do: Callable[..., Any], *arguments: Any) -> None:
    try:
        do(*arguments)
    except OSError:
        print("an upload failed", file=sys.stderr)


def settle(site: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and took(site, "/healthz") > 0.3:
        time.sleep(0.2)


def noticed(what: str, site: str, seconds: float) -> Figures:
    """/healthz and a page, one after the other, for so long; the slow end of both."""
    took_by: dict[str, list[float]] = {"/healthz": [], "/login/": []}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path, times in took_by.items():
            times.append(took(site, path))
    return {f"{what}: {path}, p95, s": sorted(times)[int(0.95 * len(times))] for path, times in took_by.items()}


def took(site: str, path: str) -> float:
    started = time.monotonic()
    connection = http.client.HTTPConnection(site.removeprefix("http://"), timeout=PATIENCE)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except OSError:
        return PATIENCE
    finally:
        connection.close()
    return time.monotonic() - started


CLIENTS = """
import http.client, sys, threading, time
host, path, token, clients, seconds, pause = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])
answers, end = [0] * clients, time.monotonic() + seconds
def ask(number):
    connection = http.client.HTTPConnection(host, timeout=60)
    while time.monotonic() < end:
        try:
            connection.request("GET", path, headers={"Authorization": "Bearer " + token})
            answer = connection.getresponse()
            answer.read()
            answers[number] += answer.status == 200
        except (OSError, http.client.HTTPException):
            connection.close()
        time.sleep(pause)
threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(clients)]
[t.start() for t in threads]
[t.join(max(0.0, end + 5 - time.monotonic())) for t in threads]
print(sum(answers))
"""


def clients(site: str, path: str, token: str, number: int, seconds: float, pause: float) -> subprocess.Popen[str]:
    arguments = [site.removeprefix("http://"), path, token, str(number), str(seconds), str(pause)]
    return subprocess.Popen([sys.executable, "-c", CLIENTS, *arguments], stdout=subprocess.PIPE, text=True)


def speed(site: str, path: str, token: str, number: int, seconds: float) -> float:
    printed, _nothing = clients(site, path, token, number, seconds, 0).communicate()
    return int(printed) / seconds


class pollers:
    """So many clients, each asking once a second, until the block is left."""

    def __init__(self, site: str, token: str, number: int) -> None:
        self.process = clients(site, "/api/tasks", token, number, 600, 1)

    def __enter__(self) -> None:
        time.sleep(1)

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


def server() -> list[psutil.Process]:
    parent = next(p for p in psutil.Process().children() if "-c" in p.cmdline())
    return [parent, *parent.children()]


def cpu_seconds() -> float:
    return sum(sum(p.cpu_times()[:2]) for p in server())


def memory() -> float:
    """MiB that the server's processes hold for themselves."""
    return sum(p.memory_full_info().uss for p in server()) / 2**20


if __name__ == "__main__":
    main()
