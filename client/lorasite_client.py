"""A typed client for Lorasite's REST API, standard library only. Run `pip install ./client`, or copy this file.

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
from typing import Any, Literal, NotRequired, TypedDict, cast
from urllib.parse import quote, urlencode

ENDED = ("SUCCESS", "FAILURE", "CANCELLED")
TRIES = 4  # of a request that gets no response
FIRST_PAUSE = 0.5  # seconds before the first retry; doubled for each further one
LONGEST_PAUSE = 60  # seconds that a server may ask for before the client gives up
CHUNK = 1 << 20  # bytes


class Progress(TypedDict):
    step: int
    total_steps: int
    epoch: float
    loss: float | None
    tokens_per_second: float | None
    eta_seconds: float | None


class Notice(TypedDict):
    level: str
    code: str
    message: str


class Result(TypedDict):
    """Whether a finished run learned and, if not, the probable cause and changes of the configuration that may help."""

    learned: bool | None
    cause: str
    message: str
    remedy: dict[str, dict[str, Any]]


class TaskResult(Result):
    """`scores` are the metrics of the task type; the three others are among them where the type has them."""

    task_type: str
    scores: dict[str, float | None]
    accuracy: float | None
    macro_f1: float | None
    loss: float | None


class Task(TypedDict):
    """A training run. `status` is PENDING, STARTED, SUCCESS, FAILURE or CANCELLED; `error` has message, kept and next."""

    task_id: str
    status: str
    stage: str
    progress: Progress
    result: TaskResult | None
    error: dict[str, str] | None
    experiment: str
    attempt: int
    deaths: int
    note: str
    notices: list[Notice]
    created_at: str
    started_at: str | None
    ended_at: str | None


class Accepted(TypedDict):
    """A run that was submitted. `notices` say what you should know before it, such as a mismatch of languages."""

    task_id: str
    status: str
    url: str
    notices: list[Notice]


class BaseModel(TypedDict):
    """A base model that runs may use. What is not known is None or empty.

    place: sample, folder or hub_cache on the server; hub: it would be downloaded. languages: empty if too many to name.
    task_types: what it can learn; empty if that is not known.
    """

    name: str
    place: str
    on_this_machine: bool
    recommended: bool
    parameters_m: float | None
    languages: list[str]
    language_count: int | None
    licence: str
    longest_text: int | None
    fused_kernels: bool | None
    shared_serving: bool | None
    safetensors: bool
    revision: str
    purpose: str
    task_types: list[str]


class Stored(TypedDict):
    name: str
    version: int
    rows: int
    labels: dict[str, int]
    kind: str
    read: dict[str, Any]
    report_url: str


class Row(TypedDict):
    """An experiment in the list of experiments. `score_name` is the metric of its task type that `score` is."""

    experiment: str
    task_id: str
    status: str
    owner: str
    dataset: str
    dataset_hash: str
    base_model: str
    task_type: str
    score: float | None
    score_name: str
    accuracy: float | None
    macro_f1: float | None
    learned: bool | None
    tags: list[str]
    note: str
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
    task_type: str
    score: float | None
    score_name: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    result: Result | None
    files: list[File]
    tags: list[str]
    note: str
    created_at: str


class ExportResult(TypedDict):
    """How exported files answer beside the served model; `equal_answers` is a share, None for scores.

    `mean_change` and `prompts` (how many are held out, of training rows, or parts of both) are None but for language models, whose
    changes are of log-probabilities.
    """

    texts: int
    equal_answers: float | None
    largest_change: float
    mean_change: float | None
    prompts: dict[str, int] | None
    compared_on: str


class Export(TypedDict):
    """A format of a model version. `status` is None until somebody has asked for it, else as that of a Task."""

    format: str
    missing_packages: list[str]
    install: str
    task_id: str | None
    status: str | None
    stage: str
    step: int
    total_steps: int
    author: str
    size: int
    result: ExportResult | None
    error: dict[str, str] | None
    url: str


class WordWeight(TypedDict):
    """A word, its place in the text in code points, and what it adds to the explained value."""

    text: str
    start: int
    end: int
    weight: float


class ExplainedValue(TypedDict):
    """What the words add to the probability of a label, or to a score, whose `label` is None."""

    label: str | None
    value: float
    words: list[WordWeight]
    text_pair_words: list[WordWeight] | None
    completeness_error: float | None


class Explanation(TypedDict):
    """`method` is leave_one_out or integrated_gradients."""

    method: str
    targets: list[ExplainedValue]


class AnswerFields(TypedDict):
    """What the answers of all task types have. `confident` is None where it is not known."""

    latency_ms: float
    base_model: str
    language: str
    model: str
    truncated: bool
    confident: bool | None
    timing: dict[str, float]
    explanation: NotRequired[Explanation]  # if it was asked for


class Prediction(AnswerFields):
    """The likeliest label of a text."""

    task: Literal["sequence_classification"]
    label: int
    probability: float
    label_name: str
    probabilities: dict[str, float]


class LabelsPrediction(AnswerFields):
    """The labels of a text, any number of them; thresholds: the probability from which on a text has each label."""

    task: Literal["multi_label_classification"]
    labels: list[str]
    probabilities: dict[str, float]
    thresholds: dict[str, float]


class ScorePrediction(AnswerFields):
    """The score of a text, in the unit of the data."""

    task: Literal["regression"]
    score: float


class Entity(TypedDict):
    """An entity, and its place in the text in code points. `probability` is that of its least certain token."""

    text: str
    start: int
    end: int
    label: str
    probability: float


class EntitiesPrediction(AnswerFields):
    """The entities of a text, in their order."""

    task: Literal["token_classification"]
    entities: list[Entity]


Answer = Prediction | LabelsPrediction | ScorePrediction | EntitiesPrediction  # `task` tells them apart


class Pair(TypedDict):
    """Two texts that a model reads together."""

    text: str
    text_pair: str


class ApiError(Exception):
    """The server refused a request.

    The text of the exception is for people, `code` for programs. `errors` has the invalid fields, `request_id` the id to
    quote when asking for help.
    """

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.body = body
        self.code = str(body.get("code", ""))
        self.errors = cast("list[dict[str, str]]", body.get("errors", []))
        self.request_id = str(body.get("request_id", ""))
        super().__init__(f"{status} {self.code}: {body.get('detail', '')}")


Problem = ApiError  # its name in version 0.1.0


class Lorasite:
    """A site, as seen by one account. `token` is an API token (ls_pat_…) or the access token of a sign-in."""

    def __init__(self, site: str = "http://127.0.0.1:8000", token: str = "", *, timeout: float = 120) -> None:
        self.site = site.rstrip("/")
        self.token = token
        self.timeout = timeout

    @classmethod
    def sign_in(cls, site: str, username: str, password: str, code: str | None = None) -> Lorasite:
        """Sign in with a password, and with a code if the account has a second factor; lasts for half an hour."""
        client = cls(site)
        credentials = {"username": username, "password": password}
        if code:
            credentials["code"] = code
        client.token = str(client._json("POST", "/api/login", credentials)["access"])
        return client

    def upload(self, name: str, file: str | Path, **fields: str) -> Stored:
        """Upload a file as a new dataset, or as a new version of one; fields: text_column, label_column, note, …"""
        path = Path(file)
        filename = path.name.replace('"', "%22")
        # A form with a file, encoded as multipart/form-data (RFC 7578).
        boundary = uuid.uuid4().hex
        disposition = f'--{boundary}\r\nContent-Disposition: form-data; name="'
        parts = []
        for field, value in {"name": name, **fields}.items():
            parts.append(f'{disposition}{field}"\r\n\r\n{value}\r\n'.encode())
        parts.append(f'{disposition}file"; filename="{filename}"\r\n'.encode())
        parts.append(b"Content-Type: application/octet-stream\r\n\r\n" + path.read_bytes())
        parts.append(f"\r\n--{boundary}--\r\n".encode())
        headers = {
            "Idempotency-Key": uuid.uuid4().hex,
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        }
        return cast(Stored, self._json("POST", "/api/datasets", b"".join(parts), headers))

    def base_models(self, q: str = "", *, language: str = "", task: str = "", hub: bool = False) -> list[BaseModel]:
        """Return the base models that runs may use: those on the server first, then the recommended ones of the hub.

        q: words in name, languages, licence or purpose. language: only models that read it, such as "Chinese".
        task: only models that can learn this task type. hub: also search the model hub for q.
        """
        query = urlencode({"q": q, "language": language, "task": task, "hub": "true" if hub else "false"})
        return cast("list[BaseModel]", self._json("GET", f"/api/base-models?{query}")["results"])

    def train(self, config: Mapping[str, Any] | str | Path) -> Accepted:
        """Submit a training run; its configuration is a mapping, YAML text or the path of a YAML file."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        if isinstance(config, Mapping):
            return cast(Accepted, self._json("POST", "/api/train", config, headers))
        text = config.read_text(encoding="utf-8") if isinstance(config, Path) else config
        headers["Content-Type"] = "application/yaml"
        return cast(Accepted, self._json("POST", "/api/train", text.encode(), headers))

    def task(self, task_id: str) -> Task:
        """Return the current state of a run."""
        return cast(Task, self._json("GET", f"/api/task/{task_id}"))

    def watch(self, task_id: str, every: float = 2.0) -> Iterator[Task]:
        """Yield the run's state whenever it has changed, until the run has ended."""
        etag = ""
        while True:
            response = self._send("GET", f"/api/task/{task_id}", headers={"If-None-Match": etag} if etag else {})
            if response is not None:
                etag = response.headers.get("ETag", "")
                with response:
                    state = cast(Task, json.load(response))
                yield state
                if state["status"] in ENDED:
                    return
            time.sleep(every)

    def wait(self, task_id: str, every: float = 2.0) -> Task:
        """Wait until the run has ended; return its last state."""
        return list(self.watch(task_id, every))[-1]

    def cancel(self, task_id: str) -> Task:
        """Ask a run to stop. It saves a checkpoint first, from which `resume` continues."""
        return cast(Task, self._json("POST", f"/api/task/{task_id}/cancel"))

    def resume(self, task_id: str) -> Task:
        """Put a cancelled or failed run back into the queue; it continues from its last checkpoint."""
        return cast(Task, self._json("POST", f"/api/task/{task_id}/resume"))

    def experiments(self, **filters: str) -> Iterator[Row]:
        """Yield your experiments and those shared with you; filters: q, status, learned, dataset, base_model, tag,
        owner, sort.

        Reads one page at a time from the server, when the iteration gets there.
        """
        link: str | None = f"/api/experiments/mine?{urlencode(filters)}"
        while link:
            page = self._json("GET", link.removeprefix(self.site))
            yield from cast("list[Row]", page["results"])
            link = page["next"]

    def experiment(self, name: str) -> Experiment:
        """Return an experiment with its configuration, metrics and list of files."""
        return cast(Experiment, self._json("GET", f"/api/experiments/{quote(name)}"))

    def download(self, name: str, into: str | Path, only: str = "artifacts/final_model/") -> list[Path]:
        """Download the files whose path begins with `only` into a folder; all files with `only=""`."""
        paths = [file["path"] for file in self.experiment(name)["files"] if file["path"].startswith(only)]
        targets = []
        for path in paths:
            target = Path(into) / path
            targets.append(target)
            response = self._send("GET", f"/api/experiments/{quote(name)}/files/{quote(path)}")
            with response:
                save(response, target)
        return targets

    def export_model(self, name: str, format: str = "safetensors", every: float = 2.0) -> Export:
        """Export a model version, and return once that has ended. docs/models.md lists the formats.

        name: "name" (the newest version), "name@3" or "name@champion". An export that is there is not made again.
        """
        export = cast(Export, self._json("POST", f"/api/models/{quote(name)}/exports", {"format": format}))
        while export["status"] not in ENDED:
            time.sleep(every)
            export = cast(Export, self._json("GET", export["url"]))
        return export

    def download_export(self, name: str, format: str, into: str | Path) -> Path:
        """Download a finished export as a .zip file into a folder; return its path."""
        target = Path(into) / f"{name}-{format}.zip"
        response = self._send("GET", f"/api/models/{quote(name)}/exports/{quote(format)}/archive")
        with response:
            save(response, target)
        return target

    def predict(self, text: str, model: str | None = None, *, text_pair: str | None = None) -> Prediction:
        """Return the likeliest label of one text, or of a pair of texts.

        model: the name of an experiment or of a registered model; "name@3" or "name@champion" is one version of it. Without
        it, the server uses its default one, or else the most accurate.
        """
        return cast(Prediction, self.answer(text, model, text_pair=text_pair))

    def predict_labels(self, text: str, model: str, *, text_pair: str | None = None) -> LabelsPrediction:
        """Return the labels that a multi-label model gives to one text, or to a pair. Raises TypeError for other models."""
        answer = self.answer(text, model, text_pair=text_pair)
        if answer["task"] != "multi_label_classification":
            raise TypeError(f"{model} is a model of {answer['task']}, which gives no list of labels.")
        return answer

    def predict_score(self, text: str, model: str, *, text_pair: str | None = None) -> ScorePrediction:
        """Return the score that a regression model gives to one text, or to a pair. Raises TypeError for other models."""
        answer = self.answer(text, model, text_pair=text_pair)
        if answer["task"] != "regression":
            raise TypeError(f"{model} is a model of {answer['task']}, which gives no score.")
        return answer

    def find_entities(self, text: str, model: str) -> EntitiesPrediction:
        """Return the entities that a model finds in a text. Raises TypeError for models of another task type."""
        answer = self.answer(text, model)
        if answer["task"] != "token_classification":
            raise TypeError(f"{model} is a model of {answer['task']}, which finds no entities.")
        return answer

    def answer(
        self,
        text: str,
        model: str | None = None,
        *,
        text_pair: str | None = None,
        explain: bool | Mapping[str, str] = False,
    ) -> Answer:
        """Return the answer of a model of any task type; `answer["task"]` tells which it is. model: as for `predict`.

        explain: True, or {"method": "integrated_gradients", "label": "price"}, adds what each word adds to the answer.
        """
        body: dict[str, Any] = {"text": text}
        if text_pair is not None:
            body["text_pair"] = text_pair
        if explain:
            body["explain"] = explain if isinstance(explain, bool) else dict(explain)
        if model:
            body["model"] = model
        return cast(Answer, self._json("POST", "/api/predict", body))

    def predict_all(self, texts: Sequence[str | Pair], model: str | None = None) -> list[Prediction]:
        """Predict the labels of up to 64 texts in one request, which is faster than one request each.

        Returns the predictions in the order of the texts. model: as for `predict`.
        """
        return cast("list[Prediction]", self.answer_all(texts, model))

    def answer_all(self, texts: Sequence[str | Pair], model: str | None = None) -> list[Answer]:
        """Return the answers of a model of any task type to up to 64 texts, or pairs of texts, in their order."""
        body: dict[str, Any] = {"texts": list(texts)}
        if model:
            body["model"] = model
        return cast("list[Answer]", self._json("POST", "/api/predict", body))

    def share(self, kind: str, name: str, to: str, access: str = "view") -> None:
        """Share an object, or stop sharing it.

        kind: dataset, experiment or model. to: a username, or "group:" and the name of a group.
        access: view, manage, owner (hands it over) or none (stops sharing).
        """
        self._json("POST", f"/api/sharing/{kind}/{quote(name)}", {"to": to, "access": access})

    def _json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a body, as JSON unless it is bytes, and return the parsed response; None for an empty one.

        `headers` replace the default ones of the same name.
        """
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        with self._send(method, path, body, {"Content-Type": "application/json", **(headers or {})}) as response:
            return json.loads(response.read() or b"null")

    def _send(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a request and return the open response; None for 304 Not Modified.

        Retries what is safe to repeat: reads, and requests with an idempotency key. Raises ApiError if the server refuses.
        """
        sent_headers = {"Accept": "application/json", "X-API-Version": "1", **(headers or {})}
        if self.token:
            sent_headers["Authorization"] = f"Bearer {self.token}"
        repeatable = method == "GET" or "Idempotency-Key" in sent_headers
        for retry in range(TRIES):
            last = retry == TRIES - 1
            request = urllib.request.Request(self.site + path, body, sent_headers, method=method)
            try:
                return urllib.request.urlopen(request, timeout=self.timeout)
            except urllib.error.HTTPError as error:
                if error.code == 304:
                    return None
                pause = error.headers.get("Retry-After", "")
                throttled = error.code == 429 and pause.isdigit() and float(pause) <= LONGEST_PAUSE
                if last or not throttled:
                    raise _read_error(error) from None
                time.sleep(float(pause))
            except (OSError, HTTPException):
                if not repeatable or last:
                    raise
                time.sleep(FIRST_PAUSE * 2**retry)
        raise AssertionError("unreachable")


def save(response: Any, target: Path) -> None:
    """Write the body of a response to a file, and make its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        while chunk := response.read(CHUNK):
            file.write(chunk)


def _read_error(error: urllib.error.HTTPError) -> ApiError:
    """Return the exception for a response with an error status, whoever wrote its body."""
    try:
        body = json.loads(error.read())
    except ValueError:  # a proxy's own page, not the site's JSON
        body = {"detail": error.reason}
    return ApiError(error.code, body if isinstance(body, dict) else {"detail": str(body)})
