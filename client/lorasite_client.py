"""A typed client for Lorasite's REST API. Standard library only; `pip install ./client`, or copy this one file.

lorasite = Lorasite("http://127.0.0.1:8000", token="ls_pat_…")
run = lorasite.train({"experiment_name": "first", "data": {"dataset_name": "tweets-en"}})
for state in lorasite.watch(run["task_id"]):
    print(state["stage"], state["progress"]["step"])
print(lorasite.predict("what a lovely day", model="first")["label_name"])
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypedDict, cast
from urllib.parse import quote, urlencode

ENDED = ("SUCCESS", "FAILURE", "CANCELLED")
TRIES, PAUSE = 4, 0.5  # of a request that got no answer, and the seconds before the first repetition


class Progress(TypedDict):
    step: int
    total_steps: int
    epoch: float
    loss: float | None
    tokens_per_second: float | None
    eta_seconds: float | None


class Task(TypedDict):
    """A run. `status` is PENDING, STARTED, SUCCESS, FAILURE or CANCELLED; `error` has message, kept and next."""

    task_id: str
    status: str
    stage: str
    progress: Progress
    result: dict[str, Any] | None
    error: dict[str, str] | None
    experiment: str
    attempt: int
    deaths: int
    note: str
    created_at: str
    started_at: str | None
    ended_at: str | None


class Accepted(TypedDict):
    task_id: str
    status: str
    url: str


class Stored(TypedDict):
    name: str
    version: int
    rows: int
    labels: dict[str, int]
    report_url: str


class Row(TypedDict):
    """One line of the list of experiments."""

    experiment: str
    task_id: str
    status: str
    owner: str
    dataset: str
    dataset_hash: str
    base_model: str
    accuracy: float | None
    macro_f1: float | None
    created_at: str


class File(TypedDict):
    path: str
    size: int


class Experiment(TypedDict):
    experiment: str
    task_id: str
    status: str
    owner: str
    dataset: str
    dataset_hash: str
    base_model: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    files: list[File]
    created_at: str


class Prediction(TypedDict):
    label: int
    probability: float
    latency_ms: float
    base_model: str
    language: str
    label_name: str
    probabilities: dict[str, float]
    model: str
    truncated: bool
    timing: dict[str, float]


class Problem(Exception):
    """What the server refused: a sentence for people, `code` for programs, `errors` with the fields at fault."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status, self.body = status, body
        self.code = str(body.get("code", ""))
        self.errors = cast("list[dict[str, str]]", body.get("errors", []))
        self.request_id = str(body.get("request_id", ""))
        super().__init__(f"{status} {self.code}: {body.get('detail', '')}")


class Lorasite:
    """One site, as one person. `token` is a personal token (ls_pat_…), or the access token of a sign-in."""

    def __init__(self, site: str = "http://127.0.0.1:8000", token: str = "", *, timeout: float = 120) -> None:
        self.site, self.token, self.timeout = site.rstrip("/"), token, timeout

    @classmethod
    def sign_in(cls, site: str, username: str, password: str, code: str | None = None) -> Lorasite:
        """With a password, and a code where the account has a second factor; lasts for half an hour."""
        found = cls(site)
        given = {"username": username, "password": password} | ({"code": code} if code else {})
        found.token = str(found._json("POST", "/api/login", given)["access"])
        return found

    def upload(self, name: str, file: str | Path, **fields: str) -> Stored:
        """A file as a new dataset, or as the next version of yours; fields: text_column, label_column, note, …"""
        boundary, path = uuid.uuid4().hex, Path(file)
        body = _form(boundary, {"name": name, **fields}, path)
        kind = f"multipart/form-data; boundary={boundary}"
        return cast(Stored, self._read(self._send("POST", "/api/datasets", body, _once() | {"Content-Type": kind})))

    def train(self, config: Mapping[str, Any] | str | Path) -> Accepted:
        """Submit a run: a mapping, YAML text, or a YAML file."""
        headers = _once()
        if isinstance(config, Mapping):
            return cast(Accepted, self._json("POST", "/api/train", config, headers))
        text = config.read_text(encoding="utf-8") if isinstance(config, Path) else config
        headers |= {"Content-Type": "application/yaml"}
        return cast(Accepted, self._read(self._send("POST", "/api/train", text.encode(), headers)))

    def task(self, task_id: str) -> Task:
        return cast(Task, self._json("GET", f"/api/task/{task_id}"))

    def watch(self, task_id: str, every: float = 2.0) -> Iterator[Task]:
        """The run's state whenever it has changed, until it has ended."""
        tag = ""
        while True:
            answer = self._send("GET", f"/api/task/{task_id}", headers={"If-None-Match": tag} if tag else {})
            if answer is not None:
                tag = answer.headers.get("ETag", "")
                state = cast(Task, self._read(answer))
                yield state
                if state["status"] in ENDED:
                    return
            time.sleep(every)

    def wait(self, task_id: str, every: float = 2.0) -> Task:
        """The run's last state, once it has ended."""
        return list(self.watch(task_id, every))[-1]

    def cancel(self, task_id: str) -> Task:
        return cast(Task, self._json("POST", f"/api/task/{task_id}/cancel"))

    def resume(self, task_id: str) -> Task:
        return cast(Task, self._json("POST", f"/api/task/{task_id}/resume"))

    def experiments(self, **filters: str) -> Iterator[Row]:
        """Yours and what is shared with you; filters: q, status, dataset, base_model, owner, sort."""
        link: str | None = f"/api/experiments/mine?{urlencode(filters)}"
        while link:
            page = self._json("GET", link.removeprefix(self.site))
            yield from cast("list[Row]", page["results"])
            link = page["next"]

    def experiment(self, name: str) -> Experiment:
        return cast(Experiment, self._json("GET", f"/api/experiments/{quote(name)}"))

    def download(self, name: str, into: str | Path, only: str = "artifacts/final_model/") -> list[Path]:
        """The files of an experiment whose path begins with `only`, below the folder `into`; all with `only=""`."""
        wanted = [file["path"] for file in self.experiment(name)["files"] if file["path"].startswith(only)]
        return [self._file(name, path, Path(into) / path) for path in wanted]

    def predict(self, text: str, model: str | None = None) -> Prediction:
        return cast(Prediction, self._json("POST", "/api/predict", {"text": text} | _named(model)))

    def predict_all(self, texts: Sequence[str], model: str | None = None) -> list[Prediction]:
        """Up to 64 texts at once; the answers are in their order."""
        return cast("list[Prediction]", self._json("POST", "/api/predict", {"texts": list(texts)} | _named(model)))

    def share(self, kind: str, name: str, to: str, access: str = "view") -> None:
        """kind: dataset, experiment or model; to: a username, or group: and a group's name; access: none to end it."""
        self._json("POST", f"/api/sharing/{kind}/{quote(name)}", {"to": to, "access": access})

    def _file(self, name: str, path: str, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        answer = self._send("GET", f"/api/experiments/{quote(name)}/files/{quote(path)}")
        with answer, target.open("wb") as out:
            while chunk := answer.read(1 << 20):
                out.write(chunk)
        return target

    def _json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        return self._read(self._send(method, path, sent, {"Content-Type": "application/json", **(headers or {})}))

    def _read(self, answer: Any) -> Any:
        with answer:
            return json.loads(answer.read() or b"null")

    def _send(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """The answer, not read yet; None for 304. Repeats what may be repeated: reads, and what carries a key."""
        said = {"Accept": "application/json", "X-API-Version": "1", **(headers or {})}
        said |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        safe = method == "GET" or "Idempotency-Key" in said
        for left in reversed(range(TRIES)):
            request = urllib.request.Request(self.site + path, body, said, method=method)
            try:
                return urllib.request.urlopen(request, timeout=self.timeout)
            except urllib.error.HTTPError as error:
                wait = _pause(error, left)
                if error.code == 304:
                    return None
                if wait is None:
                    raise _problem(error) from None
                time.sleep(wait)
            except (OSError, HTTPException):
                if not safe or not left:
                    raise
                time.sleep(PAUSE * 2 ** (TRIES - left - 1))
        raise AssertionError("unreachable")


def _once() -> dict[str, str]:
    """A key with which a request that is sent again makes nothing twice."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def _named(model: str | None) -> dict[str, str]:
    return {"model": model} if model else {}


def _pause(error: urllib.error.HTTPError, left: int) -> float | None:
    """Seconds to wait before sending it again; None: it is refused for good."""
    after = error.headers.get("Retry-After", "")
    return float(after) if error.code == 429 and left and after.isdigit() and float(after) <= 60 else None


def _problem(error: urllib.error.HTTPError) -> Problem:
    try:
        body = json.loads(error.read())
    except ValueError:
        body = {"detail": error.reason}
    return Problem(error.code, body if isinstance(body, dict) else {"detail": str(body)})


def _form(boundary: str, fields: Mapping[str, str], file: Path) -> bytes:
    head = 'Content-Disposition: form-data; name="'
    parts = [f'--{boundary}\r\n{head}{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    shown = file.name.replace('"', "%22")
    begin = f'--{boundary}\r\n{head}file"; filename="{shown}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return b"".join([*parts, begin.encode(), file.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
