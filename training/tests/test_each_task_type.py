"""From a file to a registered model, for each task type: the real engine on few rows."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.core.management import call_command
from django.test import Client
from django.utils.html import escape

from accounts.models import User
from datasets_app.versions.creation import create_version
from experiments.models import Experiment
from experiments.results import plain_peft_code, read_facts
from samples import base_model_path
from testing.programs import run_program
from training import services
from training.models import Point, Status, Task
from training.tests.conftest import tiny

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

THINGS = ("train", "hotel", "meal", "room", "staff", "view", "pool", "bus")
# Words by label: each text says plainly what is true of it.
WORDS = {"late": "came two hours late", "loud": "was so loud that nobody slept", "dear": "cost far too much money"}


def single_label_pairs() -> pl.DataFrame:
    """Return 192 pairs of texts: the second one answers the first or not."""
    rows = []
    for n in range(192):
        thing = THINGS[n % 8]
        answers = n % 2 == 0
        second = f"Yes, the {thing} number {n} was good." if answers else f"The sun shines on hill {n} today."
        rows.append((f"How was the {thing} on day {n}?", second, "answer" if answers else "other"))
    return pl.DataFrame(rows, schema=["question", "reply", "label"], orient="row")


def several_labels() -> pl.DataFrame:
    """Return 192 texts with none to three labels."""
    names = list(WORDS)
    rows = []
    for n in range(192):
        chosen = [name for bit, name in enumerate(names) if n >> bit & 1]
        complaint = " and ".join(WORDS[name] for name in chosen) or "was just as we had hoped"
        rows.append((f"The {THINGS[n % 7]} of day {n} {complaint}.", ";".join(chosen)))
    return pl.DataFrame(rows, schema=["text", "labels"], orient="row")


def scores() -> pl.DataFrame:
    """Return 192 texts with a number from 0 to 10."""
    words = ("terrible and awful", "bad", "so so", "good", "wonderful and perfect")
    rows = [(f"The {THINGS[n % 7]} of day {n} was {words[n % 5]}.", 2.5 * (n % 5) + n % 3 / 10) for n in range(192)]
    return pl.DataFrame(rows, schema=["text", "score"], orient="row")


def entities() -> pl.DataFrame:
    """Return 192 texts with a person and a place each, as spans."""
    people, places = (
        ("Ann", "Ben", "Chris", "Dana", "Eli"),
        ("Taipei", "Berlin", "Rome", "Osaka", "Lima", "Oslo", "Bonn"),
    )
    rows = []
    for n in range(192):
        person, place = people[n % 5], places[n % 7]
        text = f"On day {n} {person} took the {THINGS[n % 8]} to {place}."
        spans = [
            {"start": text.index(name), "end": text.index(name) + len(name), "label": label}
            for name, label in ((person, "person"), (place, "place"))
        ]
        rows.append((text, json.dumps(spans)))
    return pl.DataFrame(rows, schema=["text", "spans"], orient="row")


FILES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sequence_classification": (single_label_pairs, {"text_column": "question", "text_pair_column": "reply"}),
    "multi_label_classification": (several_labels, {"kind": "multi_label"}),
    "regression": (scores, {"kind": "scores"}),
    "token_classification": (entities, {"kind": "spans", "label_column": "spans"}),
}
SAID = {  # on the page of the result, in English
    "sequence_classification": ("Confusion matrix", "Calibration", "Reliability diagram", "give or take"),
    "multi_label_classification": ("Average precision", "Threshold", "Subset accuracy", "A temperature per label"),
    "regression": ("True and predicted scores", "Off by", "R²", "Always predicting the mean"),
    "token_classification": ("Entity F1", "Per entity", "As labelled", 'class="entity"', "held-out entities"),
}


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


@pytest.mark.parametrize("task_type", FILES)
def test_file_becomes_a_registered_model(task_type, browser, member, run_worker, api, tmp_path, monkeypatch):
    make_rows, options = FILES[task_type]
    file: Path = tmp_path / "rows.csv"
    split = pl.when(pl.int_range(pl.len()) // 8 % 4 == 3).then(pl.lit("eval")).otherwise(pl.lit("train"))
    make_rows().with_columns(split.alias("split")).write_csv(file)  # 48 held-out rows, however alike the texts are
    version = create_version(user=member, name="rows", file=file, filename=file.name, **options)
    config = tiny("run", num_train_epochs=5, learning_rate=0.003, precision="fp32")
    config["data"] = {"dataset_name": "rows", "max_length": 32}
    config["lora"] = {"r": 8, "target_modules": "all-linear", "layers_to_transform": [4, 5]}
    config["system"]["baseline"] = True
    task = services.submit(user=member, config=services.parse_config(config, member))
    run_worker()

    task.refresh_from_db()
    assert task.status == Status.SUCCESS, task.error
    experiment = Experiment.objects.get()
    assert experiment.task_type == task_type and experiment.is_ready and experiment.learned
    assert experiment.score == experiment.metrics["eval"][experiment.score_name] > 0.3
    assert Point.objects.exclude(scores={}).count() == 5
    result = api(member).get(f"/api/task/{task.pk}").json()["result"]
    assert result["task_type"] == task_type and result["scores"]["loss"] == experiment.eval_loss

    tabs = (browser.get(f"/experiments/run/?tab={tab}", follow=True) for tab in ("overview", "errors", "labels"))
    page = "".join(tab.content.decode() for tab in tabs)
    for words in SAID[task_type]:
        assert words in page or escape(words) in page, words
    assert browser.get("/experiments/run/", headers={"accept-language": "zh-hant"}, follow=True).status_code == 200
    run_page = browser.get(f"/runs/{task.pk}/").content.decode()
    assert '<p class="verdict" data-status="success">' in run_page
    for address in ("/", "/experiments/", "/experiments/?sort=-score", "/experiments/run/?checkpoint=last"):
        assert browser.get(address, follow=True).status_code == 200, address

    check_program(experiment, version, monkeypatch)
    if task_type == "token_classification":
        check_marked_text(browser)
    check_card(experiment, browser, api, member)


def check_program(experiment: Experiment, version: Any, monkeypatch: Any) -> None:
    """The program of the page answers rows as the run evaluated them."""
    monkeypatch.chdir(experiment.folder.parent)
    # Where there is no hub, the folder of this name is read.
    base_model = Path("sentence-transformers/all-MiniLM-L6-v2")
    base_model.parent.mkdir()
    base_model.symlink_to(base_model_path())
    facts = read_facts(experiment.final_model)
    predict = run_program(plain_peft_code("run/artifacts/final_model", experiment.labels, experiment.config, facts))
    rows = {row["text"]: row for row in pl.read_parquet(version.path).iter_rows(named=True)}
    for worst in experiment.metrics["worst"][:4]:
        row = rows[worst["text"]]
        answer = predict(*(row[name] for name in ("text", "text_pair") if row.get(name)))
        if experiment.task_type == "token_classification":
            places = [(entity["start"], entity["end"], entity["label"]) for entity in answer]
            assert places == [(entity["start"], entity["end"], entity["label"]) for entity in worst["predicted"]]
        elif experiment.task_type == "regression":
            assert answer == pytest.approx(worst["predicted"], abs=1e-2)
        elif experiment.task_type == "multi_label_classification":
            chosen, probabilities = answer
            for name, expected in worst["probabilities"].items():
                assert probabilities[name] == pytest.approx(expected, abs=2e-3)
            thresholds = experiment.metrics["thresholds"]
            assert chosen == [name for name in experiment.labels if probabilities[name] >= thresholds[name]]
        else:
            label, probabilities = answer
            assert label == worst["predicted"]
            assert probabilities[label] == pytest.approx(worst["probability"], abs=2e-3)


def check_marked_text(browser: Client) -> None:
    """The predict page marks the entities in the text."""
    answer = browser.post("/predict/", {"model": "run", "text": "On day 500 Ann took the bus to Rome. 🎉"})
    page = answer.content.decode()
    assert '<mark class="entity">Ann <small>person</small></mark>' in page
    assert '<mark class="entity">Rome <small>place</small></mark>' in page and "31–35" in page


def check_card(experiment: Experiment, browser: Client, api: Any, member: Any) -> None:
    """The model can be registered, and its page, card and answers of the API know its task type."""
    answer = browser.post("/models/register/", {"experiment": "run", "name": "model"})
    assert answer.status_code == 302, answer.content.decode()[:500]
    detail = api(member).get("/api/models/model").json()
    assert detail["task_type"] == detail["chosen"]["task_type"] == experiment.task_type
    assert detail["score"] == experiment.score and detail["score_name"] == experiment.score_name
    page = browser.get("/models/model/").content.decode()
    assert browser.get("/models/").status_code == browser.get("/models/?dataset=rows").status_code == 200
    archive = b"".join(browser.get("/models/model@1/archive.zip").streaming_content)  # type: ignore[attr-defined]
    readme = zipfile.ZipFile(io.BytesIO(archive)).read("model/README.md").decode()
    if experiment.task_type == "regression":
        assert "type: mae" in readme and "Off by" in readme
    elif experiment.task_type == "token_classification":
        assert "entity_f1" in readme
    else:
        assert "cross-fitted" in readme and "cross-fitted" in page
    if experiment.task_type == "multi_label_classification":
        assert "| threshold |" in readme and "subset_accuracy" in readme
    assert Task.objects.get().experiment.pk == experiment.pk


def test_commands_and_estimates_ask_the_dataset_too(admin, run_worker, tmp_path, settings):
    User.objects.update(is_superuser=True)
    file = tmp_path / "scores.csv"
    scores().write_csv(file)
    create_version(user=admin, name="scores", file=file, filename=file.name, kind="scores")
    config = tiny("scores", max_steps=2)
    config["data"] = {"dataset_name": "scores", "train_samples": 48, "max_length": 24}
    config["training"]["metric_for_best_model"] = "mae"  # no metric of the task type that is the engine's default
    run_file = tmp_path / "run.yaml"
    run_file.write_text(json.dumps(config))  # JSON is YAML
    call_command("run_local", str(run_file), name="local")
    metrics = json.loads((settings.RESULTS_DIR / "local/metrics.json").read_text())
    assert metrics["task"] == "regression" and metrics["data"]["eval_rows"] > 10
    call_command("train", str(run_file), user="admin")
    assert Task.objects.get().experiment.task_type == "regression"

    parsed = services.parse_config(config, admin)
    services.estimate(user=admin, config=parsed)
    run_worker()
    estimated = services.estimate(user=admin, config=parsed).forecast
    assert estimated and estimated.seconds > 0
    assert Task.objects.get().status == Status.SUCCESS
