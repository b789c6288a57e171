"""Start compose.yaml's services in containers and use the installation; deploy/rehearsal/run builds the images and calls this."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

TREE = Path(__file__).resolve().parents[2]
OURS = {"web": 30, "worker": 45, "worker-data": 45, "worker-exports": 45, "inference": 30}  # seconds in which each ends
# without systemd Podman can't run health checks at intervals, so this script runs them
ENVIRONMENT = os.environ | {"DISABLE_HC_SYSTEMD": "true", "SAMPLES": "false"}
WEB, INFERENCE, PROMETHEUS = "http://127.0.0.1:8000", "http://127.0.0.1:8100", "http://127.0.0.1:9090"
ROWS, REMARK = 120, "nothing more is known of it " * 200  # so large that the web server leaves it to the data worker
CONFIG = {
    "experiment_name": "rehearsal",
    "lora": {"r": 4, "layers_to_transform": [5]},
    "data": {"dataset_name": "moods", "max_length": 16},
    "training": {"num_train_epochs": 1, "per_device_train_batch_size": 16, "logging_steps": 1},
    "system": {"baseline": False},
}


class Rehearsal:
    """The services of compose.yaml, in containers."""

    def play(self) -> None:
        run("ip", "link", "set", "lo", "up")
        podman("rm", "--all", "--force")
        podman("volume", "rm", "--all", "--force")
        try:
            for act in ACTS:
                timed(partial(act, self), act.__doc__)
        except BaseException:
            for name in podman("ps", "--all", "--format", "{{.Names}}").split():
                print(f"--- {name}", flush=True)
                run("podman", "logs", "--tail", "15", name, check=False)
            raise
        finally:
            podman("rm", "--all", "--force", "--time", "0")

    def start_all(self) -> None:
        """PostgreSQL, Valkey, the migration and our services start and are healthy"""
        self.start("postgres", "redis")
        self.start("migrate")
        self.until(lambda: inspect("migrate", "{{.State.Status}}") == "exited", "the migration ends")
        expect(inspect("migrate", "{{.State.ExitCode}}") == "0", "the migration ends with status 0")
        self.start("prometheus", *OURS)
        self.until(lambda: ask(f"{WEB}/readyz")[0] == 200, "ready")

    def start(self, *services: str) -> None:
        compose("up", "--detach", "--no-build", "--no-deps", *services, stdout=subprocess.DEVNULL)
        for service in services:
            if inspect(service, "{{.Config.Healthcheck}}") not in ("<nil>", "{[NONE] 0s 0s 0s 0}"):
                self.until(partial(healthy, service), f"{service} is healthy")

    def until(self, fact: Callable[[], Any], what: str, limit: float = 300) -> Any:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if result := fact():
                return result
            time.sleep(0.5)
        raise SystemExit(f"Failed within {limit:.0f} s: {what}")

    def is_confined(self) -> None:
        """our services have no root, no capability, no secret in the environment, and a read-only root file system"""
        places = {
            "/app": False,
            "/opt/venv": False,
            "/etc": False,
            "/run": False,
            "/data": True,
            "/results": True,
            "/tmp": True,
        }
        for service in OURS:
            for place, writable in places.items():
                probe = in_container(service, f"touch {place}/.probe && rm {place}/.probe", check=False)
                expect(
                    (probe.returncode == 0) == writable, f"{service}: {place} is {'' if writable else 'not '}writable"
                )
            status = in_container(service, "cat /proc/1/status").stdout
            lines = dict(line.split(":\t", 1) for line in status.splitlines())
            expect(lines["Uid"].split() == ["10001"] * 4, f"{service} runs as user 10001")
            expect(int(lines["CapEff"], 16) == int(lines["CapBnd"], 16) == 0, f"{service} has no capability")
            expect(lines["NoNewPrivs"].strip() == "1", f"{service} can't gain privileges")
            environment = in_container(service, "env").stdout
            for path in (TREE / "deploy" / "secrets").iterdir():
                expect(path.read_text() not in environment, f"{service} has no {path.name} in its environment")

    def is_inside(self) -> None:
        """PostgreSQL and Valkey have no way out and no published port"""
        for service, expected in {"postgres": False, "redis": False, "web": True}.items():
            routes = in_container(service, "cat /proc/net/route").stdout.splitlines()[1:]
            expect(any(line.split()[1] == "00000000" for line in routes) == expected, f"default route of {service}")
        expect("8000" in podman("port", "lorasite_web_1"), "web is published")
        expect(not podman("port", "lorasite_postgres_1"), "PostgreSQL is not published")

    def trains(self) -> None:
        """an upload is stored by the data worker and trained by the worker"""
        password = secret("django_superuser_password")
        status, answer = ask(f"{WEB}/api/login", {"username": "admin", "password": password})
        expect(status == 200, f"the first admin signs in ({status} {answer})")
        self.token = answer["access"]
        self.ends_well(*upload(self.token), "the upload", f"{WEB}/api/datasets/tasks")
        self.ends_well(*ask(f"{WEB}/api/train", CONFIG, self.token), "the run", f"{WEB}/api/task")

    def ends_well(self, status: int, answer: Any, what: str, address: str) -> None:
        expect(status == 202, f"{what} is accepted ({status} {answer})")

        def ended() -> Any:
            state = ask(f"{address}/{answer['task_id']}", token=self.token)[1]
            return state["status"] not in ("PENDING", "STARTED") and state

        end = self.until(ended, f"{what} ends", 600)
        expect(end["status"] == "SUCCESS", f"{what} ends well ({end['status']} {end['error']})")

    def predicts(self) -> None:
        """web and inference answer from the worker's model"""
        for address, token in ((f"{INFERENCE}/predict", ""), (f"{WEB}/api/predict", self.token)):
            status, answer = ask(address, {"text": "a lovely day", "model": "rehearsal"}, token)
            expect(status == 200 and answer["label_name"] in ("good", "bad"), f"{address} ({status} {answer})")

    def is_scraped(self) -> None:
        """metrics need the token, Prometheus reads them, and the board's queries find their figures"""
        for address in (f"{WEB}/metrics", f"{INFERENCE}/metrics"):
            expect(ask(address)[0] == 403, f"{address} without the token is refused")
            expect(ask(address, token=secret("metrics_token"), raw=True)[0] == 200, f"{address} with the token is read")
        self.until(lambda: len(query('up{job="lorasite"} == 1')) == 2, "Prometheus reads web and inference")
        board = json.loads((TREE / "deploy/grafana/boards/lorasite.json").read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                if "GPU" not in panel["title"]:  # there may be none
                    self.until(partial(query, target["expr"]), f"{panel['title']}: {target['expr']}")

    def loses_the_database(self) -> None:
        """without PostgreSQL the web server says so and goes on; with it again, all is ready"""
        podman("stop", "--time", "0", "lorasite_postgres_1")  # at once, as if it had crashed
        status, answer = ask(f"{WEB}/readyz")
        error = status == 503 and answer["checks"]["database"]["state"] == "error"
        expect(error, f"/readyz names the database ({status} {answer})")
        expect(ask(f"{WEB}/healthz")[0] == 200, "/healthz still answers")
        text = ask(f"{WEB}/metrics", token=secret("metrics_token"), raw=True)[1]
        expect('lorasite_check_ok{check="database"} 0.0' in text, "/metrics says it too")
        podman("start", "lorasite_postgres_1")
        self.until(lambda: ask(f"{WEB}/readyz")[0] == 200, "ready again")

    def is_backed_up(self) -> None:
        """the database is dumped, the volumes are copied, and every row fits its files"""
        listed = in_container("postgres", "pg_dump -U lorasite -Fc lorasite | pg_restore --list").stdout
        expect("TABLE DATA public datasets_app_dataset " in listed, f"the dump holds the datasets ({listed[-500:]})")
        (TREE / "backup").mkdir()
        for volume in ("data", "results"):
            podman("cp", f"lorasite_web_1:/{volume}", str(TREE / "backup" / volume))
            expect(any((TREE / "backup" / volume).rglob("*")), f"{volume} is copied")
        in_container("web", "python manage.py verify")

    def stops(self) -> None:
        """SIGTERM ends each service in its grace"""
        for service, limit in OURS.items():
            podman("stop", "--time", str(limit), f"lorasite_{service}_1")
            status = inspect(service, "{{.State.ExitCode}}")
            expect(status == "0", f"{service} ends with status 0 ({status})")

    def starts_again(self) -> None:
        """after `down` and `up` everything is there, because the volumes stay"""
        compose("down", stdout=subprocess.DEVNULL)
        expect(not podman("ps", "--all", "--quiet"), "no container stays")
        self.start_all()
        self.predicts()


ACTS: tuple[Callable[[Rehearsal], None], ...] = (
    Rehearsal.start_all,
    Rehearsal.is_confined,
    Rehearsal.is_inside,
    Rehearsal.trains,
    Rehearsal.predicts,
    Rehearsal.is_scraped,
    Rehearsal.loses_the_database,
    Rehearsal.is_backed_up,
    Rehearsal.stops,
    Rehearsal.starts_again,
)


# tools


def timed(act: Callable[[], None], what: str | None = None) -> None:
    started = time.monotonic()
    act()
    print(f"ok {time.monotonic() - started:6.1f} s  {what or act.__doc__}", flush=True)


def run(*line: str, check: bool = True, **options: Any) -> str:
    done = subprocess.run(line, env=ENVIRONMENT, text=True, check=check, **options)
    return done.stdout or ""


def podman(*line: str) -> str:
    return run("podman", *line, stdout=subprocess.PIPE).strip()


def compose(*line: str, **options: Any) -> None:
    run("podman-compose", "--in-pod=false", *line, cwd=TREE, **options)


def inspect(service: str, what: str) -> str:
    return podman("inspect", "--format", what, f"lorasite_{service}_1")


def healthy(service: str) -> bool:
    line = ["podman", "healthcheck", "run", f"lorasite_{service}_1"]
    return subprocess.run(line, env=ENVIRONMENT, capture_output=True, check=False).returncode == 0


def in_container(service: str, script: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    line = ["podman", "exec", f"lorasite_{service}_1", "sh", "-c", script]
    return subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, check=check)


def secret(name: str) -> str:
    return (TREE / "deploy" / "secrets" / name).read_text()


def expect(fact: Any, what: str) -> None:
    if not fact:
        raise SystemExit(f"Failed: {what}")


def ask(address: str, body: Any = None, token: str = "", *, raw: bool = False) -> tuple[int, Any]:
    """Return status and body; the status is 0 while nothing answers."""
    request = urllib.request.Request(address, json.dumps(body).encode() if body is not None else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    return answer_to(request, raw)


def answer_to(request: urllib.request.Request, raw: bool = False) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            status, content = response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)
    return status, content if raw or not content.startswith(("{", "[")) else json.loads(content)


def upload(token: str) -> tuple[int, Any]:
    """Upload a file of a few short texts, and a column that nobody needs."""
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
    """Return what Prometheus finds; nothing while it does not answer."""
    status, answer = ask(f"{PROMETHEUS}/api/v1/query?query={quote(expression)}")
    expect(status in (0, 200, 503), f"Prometheus understands {expression} ({answer})")
    return list(answer["data"]["result"]) if status == 200 else []


if __name__ == "__main__":
    Rehearsal().play()
