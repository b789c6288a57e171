#!/usr/bin/env python3
"""`make start-services` without an engine: the Dockerfile's installation and compose.yaml's services, on this machine.

    deploy/rehearse.py                  install as the Dockerfile says, then run
    deploy/rehearse.py --venv .venv     the same with packages that are there already

Each service runs as its unprivileged user, without capabilities, on a root file system that is read-only, in a network of its
own in which services find one another by name; PostgreSQL and Redis are this machine's. Then the journey: sign in, upload,
train, predict, scrape, lose the database, get it back, stop. Linux and root (for the mounts); nothing is left behind.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
from image import ROOT, Builder, Stage, bind, chroot, inside, mount, say

WEB, INFERENCE, PROMETHEUS = "http://127.0.0.1:8000", "http://127.0.0.1:8100", "http://127.0.0.1:9090"
SERVICES = ("web", "worker", "worker-data", "inference")
ROWS, REMARK = 120, "nothing more is known of it " * 200  # so large that the web server leaves it to the data worker
CONFIG = {
    "experiment_name": "rehearsal",
    "lora": {"r": 4, "layers_to_transform": [5]},
    "data": {"dataset_name": "moods", "max_length": 16},
    "training": {"num_train_epochs": 1, "per_device_train_batch_size": 16, "logging_steps": 1},
    "system": {"baseline": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="packages that are mounted instead of being installed")
    parser.add_argument("--torch-index", default="https://pypi.org/simple", help="where torch comes from (PyPI)")
    parser.add_argument("--in", dest="home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.home is None:
        sys.exit(in_namespaces())
    started = time.monotonic()
    installed = install(options)
    say(f"installed in {time.monotonic() - started:.0f} s")
    alone_in_the_network()
    Rehearsal(options.home, *installed).play()
    say(f"all of it in {time.monotonic() - started:.0f} s")


def in_namespaces() -> int:
    """This script again, with mounts of its own; they end with it."""
    home = tempfile.mkdtemp(prefix="lorasite-rehearsal-")
    line = ["unshare", "--mount", sys.executable, __file__, *sys.argv[1:], "--in", home]
    try:
        return subprocess.run(line, check=False).returncode
    finally:
        os.rmdir(home)


def install(options: Any) -> tuple[Path, dict[str, Stage]]:
    """The root that all images share, and their stages."""
    mount("-t", "tmpfs", "-o", "size=10g,mode=755", "tmpfs", str(options.home))
    builder = Builder(
        options.home / "images", {"TORCH_INDEX": options.torch_index}, options.venv and options.venv.resolve()
    )
    builder.build("packages")
    root = builder.build("base")
    return root, {name: builder.settle(name) for name in ("web", "worker", "inference")}


def alone_in_the_network() -> None:
    """A network of our own with loopback alone, so that every port is free and nothing reaches outside."""
    import ctypes

    clone_newnet, siocsifflags, up = 0x40000000, 0x8914, 0x1 | 0x40
    if ctypes.CDLL(None, use_errno=True).unshare(clone_newnet):
        raise OSError(ctypes.get_errno(), "unshare")
    import fcntl

    with socket.socket() as s:
        fcntl.ioctl(s, siocsifflags, struct.pack("16sh14s", b"lo", up, b""))


class Rehearsal:
    """compose.yaml's services over `root`."""

    def __init__(self, home: Path, root: Path, stages: dict[str, Stage]) -> None:
        self.home, self.root, self.stages = home, root, stages
        text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
        filled = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: {"SAMPLES": "false"}.get(found[1], found[2]), text)
        self.compose: dict[str, Any] = yaml.safe_load(filled)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.secrets = home / "secrets"

    def play(self) -> None:
        try:
            self.prepare()
            for act in ACTS:
                started = time.monotonic()
                act(self)
                say(f"ok  {time.monotonic() - started:5.1f} s  {(act.__doc__ or '').splitlines()[0]}")
        except BaseException:
            self.tell_logs()
            raise
        finally:
            for process in self.running.values():
                process.kill()
                process.wait()

    # what an engine does before it starts anything

    def prepare(self) -> None:
        """Secrets, names of services, volumes with the owner that the image gives them, then nothing more is written."""
        shutil.copy(ROOT / "deploy" / "make-secrets", self.home)
        subprocess.run([str(self.home / "make-secrets")], check=True, stdout=subprocess.DEVNULL)
        with inside(self.root, "/etc/hosts").open("a") as hosts:
            hosts.write(f"127.0.0.1 {' '.join(self.compose['services'])}\n")
        shutil.copytree(self.secrets, inside(self.root, "/run/secrets"), dirs_exist_ok=True)
        inside(self.root, "/run/secrets").chmod(0o755)
        for volume in self.compose["x-lorasite"]["volumes"]:
            name, _colon, place = volume.partition(":")
            self.volume(name, place, inside(self.root, place).stat().st_uid)
        self.configure_prometheus()
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(inside(self.root, "/tmp")))
        mount("-o", "remount,ro,bind", str(self.root))

    def configure_prometheus(self) -> None:
        """Its files as they are, but scraped each second."""
        there = inside(self.root, "/etc/prometheus")
        shutil.copytree(ROOT / "deploy" / "prometheus", there, dirs_exist_ok=True)
        text = (there / "prometheus.yml").read_text()
        (there / "prometheus.yml").write_text(re.sub(r"(scrape|evaluation)_interval: \d+s", r"\1_interval: 1s", text))
        self.volume("prometheus", "/prometheus", 65534)

    def volume(self, name: str, place: str, owner: int) -> None:
        folder = self.home / "volumes" / name
        folder.mkdir(parents=True)
        os.chown(folder, owner, owner)
        bind(folder, inside(self.root, place))

    # processes

    def start(self, name: str, line: list[str], **options: Any) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True, **options)

    def line_of(self, service: str, line: list[str] | None = None) -> list[str]:
        """How the service's command (or another) runs in its container."""
        asked = self.compose["services"][service]
        stage = self.stages[asked["build"]["target"]]
        set_here = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in asked.get("environment", {}).items()
        }
        return chroot(
            self.root,
            stage.environment | set_here,
            stage.folder,
            line or asked.get("command") or stage.command,
            stage.user,
        )

    def stop(self, name: str, limit: float, how: signal.Signals = signal.SIGTERM) -> int:
        process = self.running.pop(name)
        os.killpg(process.pid, how)
        return process.wait(limit)

    def until(self, fact: Callable[[], Any], what: str, limit: float = 60) -> Any:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if found := fact():
                return found
            for name, process in self.running.items():
                want(process.poll() is None, f"{name} goes on running while we wait: {what}")
            time.sleep(0.2)
        raise SystemExit(f"SHORT not in {limit:.0f} s: {what}")

    def healthy(self, service: str) -> bool:
        stage = self.stages[self.compose["services"][service]["build"]["target"]]
        line = self.line_of(service, stage.healthcheck)
        return subprocess.run(line, capture_output=True, check=False).returncode == 0

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def tell_logs(self) -> None:
        for log in sorted(self.home.glob("*.log")):
            say(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")

    # the journey

    def starts_postgres_and_redis(self) -> None:
        """PostgreSQL and Redis answer"""
        data = self.home / "volumes" / "postgres"
        data.mkdir()
        shutil.chown(data, "postgres")
        as_postgres(
            "initdb", "-D", str(data), "-U", "lorasite", "-A", "scram-sha-256", f"--pwfile={self.home}/pw", home=self
        )
        self.start_postgres()
        program = shutil.which("redis-server") or shutil.which("valkey-server") or "redis-server"
        options = self.compose["services"]["redis"]["command"][1:]
        self.start("redis", [program, *options], cwd=self.home)
        self.until(lambda: answers(6379), "Redis answers")
        environment = {**os.environ, "PGPASSWORD": self.secret("postgres_password")}
        create = [program_of_postgres("createdb"), "-h", "127.0.0.1", "-U", "lorasite", "lorasite"]
        subprocess.run(create, env=environment, check=True)

    def start_postgres(self) -> None:
        options = ["-D", str(self.home / "volumes" / "postgres"), "-c", "listen_addresses=127.0.0.1", "-k", ""]
        self.start("postgres", [program_of_postgres("postgres"), *options], user="postgres", cwd="/")
        self.until(lambda: answers(5432), "PostgreSQL answers")
        time.sleep(0.5)

    def migrates(self) -> None:
        """migrate: the database is made, and the first admin"""
        for _again in range(2):  # the second time it finds all done
            line = self.line_of("migrate")
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)

    def starts_our_services(self) -> None:
        """web, workers and inference are healthy by the Dockerfile's own checks"""
        for name in SERVICES:
            self.start(name, self.line_of(name))
        for name in SERVICES:
            self.until(partial(self.healthy, name), f"{name} is healthy")
        if program := shutil.which("prometheus"):
            line = self.compose["services"]["prometheus"]["command"]
            self.start("prometheus", chroot(self.root, {}, "/", [program, *line], "65534:65534"))

    def is_ready(self) -> None:
        """/readyz holds"""
        self.until(lambda: ask(f"{WEB}/readyz")[0] == 200, "ready")

    def writes_nowhere(self) -> None:
        """the root file system is read-only, and the services' user owns the volumes"""
        for place, wanted in {
            "/app": False,
            "/opt/venv": False,
            "/etc": False,
            "/data": True,
            "/results": True,
            "/tmp": True,
        }.items():
            line = self.line_of("web", ["sh", "-c", f"touch {place}/.probe && rm {place}/.probe"])
            found = subprocess.run(line, capture_output=True, check=False).returncode == 0
            want(found == wanted, f"{place} is {'' if wanted else 'not '}writable")

    def trains(self) -> None:
        """an upload is stored by the data worker and trained by the worker"""
        password = self.secret("django_superuser_password")
        status, found = ask(f"{WEB}/api/login", {"username": "admin", "password": password})
        want(status == 200, f"the first admin signs in ({status} {found})")
        self.token = found["access"]
        status, found = upload(self.token)
        self.ends_well(status, found, "the upload", f"{WEB}/api/datasets/tasks")
        status, found = ask(f"{WEB}/api/train", CONFIG, self.token)
        self.ends_well(status, found, "the run", f"{WEB}/api/task")

    def ends_well(self, status: int, found: Any, what: str, address: str) -> None:
        want(status == 202, f"{what} is accepted ({status} {found})")
        end = self.until(
            lambda: (
                (state := ask(f"{address}/{found['task_id']}", token=self.token)[1])["status"]
                not in ("PENDING", "STARTED")
                and state
            ),
            f"{what} ends",
            120,
        )
        want(end["status"] == "SUCCESS", f"{what} ends well ({end['status']} {end['error']})")

    def predicts(self) -> None:
        """web and inference answer from the worker's model"""
        for address, token in ((f"{INFERENCE}/predict", ""), (f"{WEB}/api/predict", self.token)):
            status, found = ask(address, {"text": "a lovely day", "model": "rehearsal"}, token)
            want(status == 200 and found["label_name"] in ("good", "bad"), f"{address} ({status} {found})")

    def is_scraped(self) -> None:
        """/metrics of web and inference are read with the token alone, and the board's queries find their figures"""
        for address in (f"{WEB}/metrics", f"{INFERENCE}/metrics"):
            want(ask(address)[0] == 403, f"{address} without the token is refused")
            want(
                ask(address, token=self.secret("metrics_token"), raw=True)[0] == 200,
                f"{address} with the token is read",
            )
        if "prometheus" in self.running:
            self.until(lambda: len(query('up{job="lorasite"} == 1')) == 2, "Prometheus reads web and inference")
            self.draws_the_board()

    def draws_the_board(self) -> None:
        board = json.loads((ROOT / "deploy/grafana/boards/lorasite.json").read_text())
        asked = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]
        for title, expression in asked:
            if "GPU" not in title:  # there may be none
                self.until(partial(query, expression), f"{title}: {expression}")
        say(f"{len(asked)} queries of the board were asked of Prometheus")

    def loses_the_database(self) -> None:
        """without PostgreSQL the web server says so and goes on; with it again, all is ready"""
        self.stop("postgres", 20, signal.SIGQUIT)  # at once, as if it had crashed
        status, found = ask(f"{WEB}/readyz")
        want(
            status == 503 and found["checks"]["database"]["state"] == "error",
            f"/readyz names the database ({status} {found})",
        )
        want(ask(f"{WEB}/healthz")[0] == 200, "/healthz still answers")
        text = ask(f"{WEB}/metrics", token=self.secret("metrics_token"), raw=True)[1]
        want('lorasite_check_ok{check="database"} 0.0' in text, "/metrics says it too")
        self.start_postgres()
        self.until(lambda: ask(f"{WEB}/readyz")[0] == 200, "ready again")

    def stops(self) -> None:
        """SIGTERM ends each service in its grace"""
        for name, limit in (("inference", 10), ("web", 10), ("worker-data", 45), ("worker", 45)):
            want(self.stop(name, limit) == 0, f"{name} ends with status 0")


ACTS: tuple[Callable[[Rehearsal], None], ...] = (
    Rehearsal.starts_postgres_and_redis,
    Rehearsal.migrates,
    Rehearsal.starts_our_services,
    Rehearsal.is_ready,
    Rehearsal.writes_nowhere,
    Rehearsal.trains,
    Rehearsal.predicts,
    Rehearsal.is_scraped,
    Rehearsal.loses_the_database,
    Rehearsal.stops,
)


def want(fact: Any, what: str) -> None:
    if not fact:
        raise SystemExit(f"SHORT {what}")


def answers(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def program_of_postgres(name: str) -> str:
    return str(max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))


def as_postgres(name: str, *arguments: str, home: Rehearsal) -> None:
    (home.home / "pw").write_text(home.secret("postgres_password"))
    shutil.chown(home.home / "pw", "postgres")
    line = [program_of_postgres(name), *arguments]
    subprocess.run(line, user="postgres", cwd="/", check=True, stdout=subprocess.DEVNULL)


def ask(address: str, body: Any = None, token: str = "", *, raw: bool = False) -> tuple[int, Any]:
    """Status and body; 0 while nothing answers."""
    request = urllib.request.Request(address, json.dumps(body).encode() if body is not None else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    return answer_to(request, raw)


def answer_to(request: urllib.request.Request, raw: bool = False) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=60) as found:
            status, content = found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)
    return status, content if raw or not content.startswith(("{", "[")) else json.loads(content)


def upload(token: str) -> tuple[int, Any]:
    """A file of a few short texts, and a column that nobody needs."""
    words = ("lovely", "awful")
    lines = (f"day {i} was {words[i % 2]},{('good', 'bad')[i % 2]},{REMARK}\n" for i in range(ROWS))
    rows = "text,label,remark\n" + "".join(lines)
    form = (
        '--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nmoods\r\n'
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="moods.csv"\r\n\r\n{rows}\r\n--b--\r\n'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": f"Bearer {token}"}
    return answer_to(urllib.request.Request(f"{WEB}/api/datasets", form.encode(), headers))


def query(expression: str) -> list[Any]:
    """What Prometheus finds; empty while it does not answer."""
    from urllib.parse import quote

    status, found = ask(f"{PROMETHEUS}/api/v1/query?query={quote(expression)}")
    want(status in (0, 200, 503), f"Prometheus understands {expression} ({found})")
    return list(found["data"]["result"]) if status == 200 else []


if __name__ == "__main__":
    main()
