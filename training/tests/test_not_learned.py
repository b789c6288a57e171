"""A run that finished but did not learn, and the engine's notices: on the run page, in the API and in the terminal."""

import io
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from engine.config import RunConfig
from engine.events import Notice
from experiments import services as experiments
from experiments.models import Experiment
from testing.belongings import belongings
from testing.experiments import METRICS, did_not_learn
from training.models import LogLine, Status, Task
from training.progress import TrainingProgress
from training.tests.test_pages import form_of
from training.tests.test_run_local import write_run

pytestmark = pytest.mark.django_db

WARNING: dict[str, Any] = {
    "level": "warning",
    "code": "base_model_head",
    "message": "The head of the base model was replaced.",
}
INFO: dict[str, Any] = {"level": "info", "code": "truncated", "message": "3 texts were truncated to 24 tokens."}


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


@pytest.fixture
def task(member: Any) -> Task:
    """The member's finished run `mine`, which did not learn because of its learning rate."""
    task = belongings(member).task
    config = {"experiment_name": "mine", "data": {"dataset_name": "mine@1"}, "training": {"learning_rate": 1.0}}
    values = {"config": RunConfig.parse(config).model_dump(mode="json"), "accuracy": 0.5, "learned": False}
    Experiment.objects.update(metrics=did_not_learn("learning_rate_too_high"), **values)
    Task.objects.update(status=Status.SUCCESS, result={"accuracy": 0.5, "macro_f1": 0.33, "loss": 1.2})
    task.refresh_from_db()
    return task


@pytest.mark.medium
def test_run_page_says_why_and_its_button_fills_the_form(browser: Client, task: Task) -> None:
    page = browser.get(f"/runs/{task.pk}/").content.decode()
    assert "The run finished, but the model did not learn." in page and "the learning rate (1) is too high" in page
    assert "No better than the majority-class baseline" in page and "/train/?like=mine&amp;remedy=1" in page
    form = browser.get("/train/?like=mine&remedy=1")
    assert "<code>training.learning_rate</code>: 1 → 0.0005" in form.content.decode()
    shown = form_of(form)
    assert shown["training.learning_rate"] == "0.0005" and shown["experiment_name"] == "mine-2"
    answer = browser.post("/train/?like=mine&remedy=1", shown)
    again = Experiment.objects.get(task=UUID(answer["Location"].split("/")[2]))
    changed = again.config["training"].pop("learning_rate"), task.experiment.config["training"].pop("learning_rate")
    assert changed == (0.0005, 1.0) and again.config["training"] == task.experiment.config["training"]


@pytest.mark.medium
def test_form_unfolds_the_section_of_what_was_changed(browser: Client, task: Task) -> None:
    Experiment.objects.update(metrics=did_not_learn("precision"))
    form = browser.get("/train/?like=mine&remedy=1")
    assert [group["title"] for group in form.context["sections"] if group["is_open"]] == ["training"]
    assert form_of(form)["training.precision"] == "fp32"
    unchanged = browser.get("/train/?like=mine")
    assert form_of(unchanged)["training.precision"] == "auto" and unchanged.context["changes"] == []


@pytest.mark.medium
def test_remedy_of_a_run_that_learned_changes_nothing(browser: Client, task: Task) -> None:
    Experiment.objects.update(metrics=METRICS, learned=None)
    form = browser.get("/train/?like=mine&remedy=1")
    assert form_of(form)["training.learning_rate"] == "1" and b'id="changes"' not in form.content
    assert b"did not learn" not in browser.get(f"/runs/{task.pk}/").content


def test_remedy_of_a_run_that_is_not_shared_is_not_found(client: Client, task: Task, stranger: Any) -> None:
    client.force_login(stranger)
    assert client.get("/train/?like=mine&remedy=1").status_code == 404


def test_screen_reader_hears_that_it_did_not_learn(browser: Client, task: Task) -> None:
    last = browser.get(f"/runs/{task.pk}/?heard=3", HTTP_HX_REQUEST="true")
    assert last.context["announcement"] == "The run finished, but the model did not learn."


def test_api_of_the_task_has_the_result_with_its_remedy(api: Any, member: Any, task: Task) -> None:
    Task.objects.update(notices=[WARNING])
    body = api(member).get(f"/api/task/{task.pk}").json()
    message = body["result"].pop("message")
    assert "did not learn" in message and body["notices"] == [WARNING]
    assert body["result"] == {
        "accuracy": 0.5, "macro_f1": 0.33, "loss": 1.2, "learned": False, "cause": "learning_rate_too_high",
        "remedy": {"training": {"learning_rate": 0.0005}}, "task_type": "sequence_classification",
        "scores": {"accuracy": 0.5, "macro_f1": 0.33, "loss": 1.2},
    }  # fmt: skip
    Task.objects.update(result=None, status=Status.FAILURE)
    assert api(member).get(f"/api/task/{task.pk}").json()["result"] is None


@pytest.mark.parametrize("status", Status.values)
def test_notices_stay_on_the_page_when_the_log_has_moved_on(browser: Client, task: Task, status: str) -> None:
    Task.objects.update(notices=[WARNING, INFO], status=status)
    Experiment.objects.update(metrics={})
    lines = [LogLine(task=task, at=timezone.now(), text=f"Step {step}/30") for step in range(30)]
    LogLine.objects.bulk_create(lines)
    page = browser.get(f"/runs/{task.pk}/").content.decode()
    assert WARNING["message"] in page and INFO["message"] in page and "Step 3/30" not in page


def test_notice_of_the_engine_is_not_repeated_beside_the_diagnosis(browser: Client, task: Task) -> None:
    notice = {"level": "warning", "code": "not_learned", "message": "Nothing was learned."}
    Task.objects.update(notices=[WARNING, notice])
    assert browser.get(f"/runs/{task.pk}/").context["notices"] == [WARNING]
    Experiment.objects.update(metrics={})  # while it is saved
    assert browser.get(f"/runs/{task.pk}/").context["notices"] == [WARNING, notice]


def test_notices_of_all_attempts_are_kept_each_once(task: Task) -> None:
    Task.objects.update(status=Status.STARTED, attempt=1)
    for attempt in ([WARNING], [WARNING, INFO | {"message": "x" * 2000}]):
        task.refresh_from_db()
        progress = TrainingProgress(task)
        for notice in attempt:
            progress.add(Notice(**notice))
        progress.write()
    plain = {"sentence": None}  # without a template that could be said in another language
    assert Task.objects.get().notices == [WARNING | plain, INFO | plain | {"message": "x" * 1000}]


def test_terminal_says_it_after_waiting(task: Task, member: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """`manage.py train --wait`; the run ends before the first look at it."""
    path = tmp_path / "run.yaml"
    path.write_text("experiment_name: waited\ndata: {dataset_name: mine}\ntraining: {learning_rate: 0.9}\n")
    monkeypatch.setattr(experiments, "check_model", lambda experiment: None)

    def finish(_command: Any, waiting: Task) -> bool:
        metrics = did_not_learn("learning_rate_too_high")
        experiments.record_result(experiment=Experiment.objects.get(task=waiting), metrics=metrics)
        return True

    monkeypatch.setattr("training.management.commands.train.Command.watch", finish)
    out = io.StringIO()
    call_command("train", str(path), "--wait", "--user", "member", stdout=out)
    assert "did not learn" in out.getvalue() and "training.learning_rate: 0.9 → 0.0005" in out.getvalue()


@pytest.mark.slow
def test_real_run_with_a_learning_rate_of_one_says_so_in_the_terminal(
    tmp_path: Path, settings: Any, capsys: Any
) -> None:
    settings.RESULTS_DIR = tmp_path / "results"
    call_command("run_local", str(write_run(tmp_path, learning_rate=1.0, max_steps=4, logging_steps=1)))
    shown = capsys.readouterr().out
    assert "Probable cause: the learning rate (1) is too high. Training loss went from" in shown
    assert "training.learning_rate: 1 → 0.0005" in shown and "The model is in" in shown
    metrics = json.loads((tmp_path / "results/local/metrics.json").read_text())
    assert metrics["result"]["cause"] == "learning_rate_too_high"
    assert "not_learned" in [notice["code"] for notice in metrics["notices"]]
