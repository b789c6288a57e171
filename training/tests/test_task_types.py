"""What a run learns follows from the kind of its data, from every door."""

import html
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from datasets_app.models import Version
from datasets_app.versions.creation import create_version
from engine.data.splits import is_held_out
from samples import base_model_path
from training import jobs, services
from training.models import Point, Status, Task, Timing
from training.tests.conftest import tiny
from web.errors import InvalidError

pytestmark = pytest.mark.django_db


@pytest.fixture
def store(member: Any, tmp_path: Path) -> Any:
    """store(name, rows, **options) stores rows of text and label, as a CSV file of the member."""

    def store_rows(name: str, rows: list[dict[str, Any]], **options: Any) -> Version:
        file = tmp_path / f"{name}.csv"
        pl.DataFrame(rows).write_csv(file)
        return create_version(user=member, name=name, file=file, filename=file.name, **options)

    return store_rows


def rows_of(labels: list[str], count: int = 60) -> list[dict[str, Any]]:
    return [
        {"text": f"{labels[n % len(labels)]} day number {n} of {n * 37 % 101}", "label": labels[n % len(labels)]}
        for n in range(count)
    ]


def multi_label_rows(count: int = 60) -> list[dict[str, Any]]:
    return [
        row | {"label": json.dumps([row["label"]] if n % 4 else ["late", "loud"])}
        for n, row in enumerate(rows_of(["late", "loud", "dear"], count))
    ]


def score_rows(count: int = 60) -> list[dict[str, Any]]:
    return [{"text": f"day number {n} of {n * 37 % 101}", "label": n / 7} for n in range(count)]


def config_for(version: Version, **sections: Any) -> dict[str, Any]:
    config = tiny(version.dataset.name)
    config["data"] = {"dataset_name": str(version), "max_length": 24}
    return config | sections


@pytest.mark.medium
def test_task_left_out_is_what_the_data_ask_for(api, member, store):
    expected = {
        "labels": store("single", rows_of(["good", "bad"]), kind="labels"),
        "multi_label": store("several", multi_label_rows(), kind="multi_label"),
        "scores": store("numbers", score_rows(), kind="scores"),
    }
    for kind, version in expected.items():
        assert version.kind == kind
        answer = api(member).post("/api/train/validate", config_for(version), format="json")
        assert answer.status_code == 200, answer.json()
        assert answer.json()["config"]["task"] == version.task_type
        assert api(member).post("/api/train", config_for(version), format="json").status_code == 202
    metrics = {task.experiment.config["training"]["metric_for_best_model"] for task in Task.objects.all()}
    assert metrics == {"accuracy", "micro_f1", "rmse"}


def test_metric_of_the_type_can_be_chosen_without_naming_the_type(member, store):
    version = store("numbers", score_rows(), kind="scores")
    config = config_for(version, training={"metric_for_best_model": "mae"})
    assert services.parse_config(config, member).training.metric_for_best_model == "mae"
    assert services.parse_config(json.dumps(config), member).task == "regression"


@pytest.mark.parametrize("task", [{}, [], None, 3, "", "poetry"])
def test_task_that_is_none_is_refused_at_its_field(api, member, store, task):
    store("single", rows_of(["good", "bad"]), kind="labels")
    config = {"task": task, "data": {"dataset_name": "single"}}
    answer = api(member).post("/api/train", config, format="json")
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "task"


def test_pairs_reach_the_engine(member, store):
    pairs = [row | {"second": f"the answer is {n}"} for n, row in enumerate(rows_of(["yes", "no"]))]
    version = store("pairs", pairs, text_pair_column="second")
    config = services.parse_config(config_for(version), member)
    assert config.data.text_pair_column == "text_pair"
    stored = config.model_dump(mode="json")
    stored["data"]["text_pair_column"] = None  # of a release that did not know it
    engine_config, paths = jobs.engine_inputs(stored, version)
    assert engine_config.data.text_pair_column == "text_pair" and paths["data_file"] == version.path


@pytest.mark.parametrize(
    ("kind", "rows", "task", "field"),
    [
        ("multi_label", multi_label_rows(), "sequence_classification", "task"),
        ("labels", rows_of(["good", "bad"]), "multi_label_classification", "task"),
        ("labels", rows_of(["good", "bad"]), "regression", "task"),
        ("scores", score_rows(), "sequence_classification", "task"),
    ],
)
def test_task_that_contradicts_the_data_is_refused_in_words(member, store, kind, rows, task, field):
    version = store("data", rows, kind=kind)
    config = services.parse_config(config_for(version, task=task), member)
    with pytest.raises(InvalidError, match="Leave task out") as caught:
        services.submit(user=member, config=config)
    assert caught.value.problems[0]["field"] == field and not Task.objects.exists()


def test_labels_that_are_numbers_may_be_learned_as_scores(member, store):
    version = store("stars", rows_of(["1", "2", "4.5"]), kind="labels")
    assert services.parse_config(config_for(version), member).task == "sequence_classification"
    config = services.parse_config(config_for(version, task="regression"), member)
    assert services.submit(user=member, config=config).experiment.config["task"] == "regression"


@pytest.mark.parametrize("column", ["", 3, [], False, "x" * 201])
def test_name_of_a_second_column_that_is_no_name_is_refused(column, member, store):
    version = store("plain", rows_of(["good", "bad"]), kind="labels")
    config = config_for(version)
    config["data"]["text_pair_column"] = column
    with pytest.raises(InvalidError) as caught:
        services.parse_config(config, member)
    assert [problem["field"] for problem in caught.value.problems] == ["data.text_pair_column"]


@pytest.mark.medium
def test_spans_of_one_label_are_learned_as_entities(member, store):
    spans = json.dumps([{"start": 0, "end": 4, "label": "word"}])
    version = store("marked", [row | {"label": spans} for row in rows_of(["good"])], kind="spans")
    task = services.submit(user=member, config=services.parse_config(config_for(version), member))
    assert task.experiment.config["task"] == "token_classification"


def held_out(version: Version, share: float = 0.1) -> pl.DataFrame:
    return pl.read_parquet(version.path).filter(is_held_out(share))


@pytest.mark.medium
def test_scores_lists_and_pairs_are_held_out_like_single_labels(store):
    numbers = sorted(map(float, held_out(store("numbers", score_rows(200), kind="scores"))["label"]))
    assert 10 <= len(numbers) <= 30 and numbers[0] < 5 and numbers[-1] > 23
    several = held_out(store("several", multi_label_rows(200), kind="multi_label"))
    assert 10 <= several.height <= 30
    assert {label for cell in several["label"] for label in json.loads(cell)} == {"late", "loud", "dear"}


@pytest.mark.medium
def test_rows_keep_their_places_in_the_next_version(store):
    pairs = [row | {"label": row["label"] / 3, "second": f"answer {row['label']:.3f}"} for row in score_rows(200)]
    options = {"kind": "scores", "text_pair_column": "second"}
    first = pl.read_parquet(store("pairs", pairs, **options).path)
    more = [*pairs, *({"text": f"new {n}", "label": n, "second": f"other {n}"} for n in range(40))]
    second = pl.read_parquet(store("pairs", more, **options).path)
    both = first.join(second, on=["text", "text_pair"])
    assert both.height == 200 and (both["held_out"] == both["held_out_right"]).all()


@pytest.fixture
def browser(client: Any, member: Any) -> Any:
    client.force_login(member)
    return client


def form_of(page: Any) -> dict[str, str]:
    """What a browser would post: every field with the value that it shows."""
    return {field.html_name: field.value() or "" for field in page.context["form"]} | {"do": "start"}


@pytest.mark.slow
def test_form_says_what_the_dataset_asks_for_and_starts_that(browser, store):
    store("single", rows_of(["good", "bad"]), kind="labels")
    store("numbers", score_rows(), kind="scores")
    page = browser.get("/train/?dataset=numbers@1")
    assert "numbers@1 asks for: Regression." in page.content.decode()
    shown = form_of(page)
    assert (shown["task"], shown["training.metric_for_best_model"], shown["training.loss"]) == ("", "", "")
    changed = browser.post("/train/", shown | {"do": "show", "data.dataset_name": "single@1"}).content.decode()
    assert "single@1 asks for: Single-label classification." in changed
    assert browser.post("/train/", shown | {"training.loss": "huber"}).status_code == 302
    config = Task.objects.get().experiment.config
    assert (config["task"], config["training"]["metric_for_best_model"], config["training"]["loss"]) == (
        "regression",
        "rmse",
        "huber",
    )


@pytest.mark.slow
def test_form_like_an_earlier_run_fits_another_kind_of_data(browser, store):
    store("single", rows_of(["good", "bad"]), kind="labels")
    store("numbers", score_rows(), kind="scores")
    browser.post("/train/", form_of(browser.get("/train/?dataset=numbers@1")))
    earlier = Task.objects.get().experiment.name
    assert form_of(browser.get(f"/train/?like={earlier}"))["task"] == ""
    again = form_of(browser.get(f"/train/?like={earlier}&dataset=single@1"))
    assert browser.post("/train/", again).status_code == 302
    assert Task.objects.latest("created_at").experiment.task_type == "sequence_classification"


@pytest.mark.medium
def test_task_that_does_not_fit_is_told_beside_its_field(browser, store):
    store("numbers", score_rows(), kind="scores")
    shown = form_of(browser.get("/train/?dataset=numbers@1"))
    page = browser.post("/train/", shown | {"task": "multi_label_classification"})
    assert page.status_code == 400 and "Leave task out" in page.context["form"].errors["task"][0]
    assert not Task.objects.exists()


@pytest.mark.medium
def test_yaml_of_an_explicit_task_keeps_it_in_the_form(browser, store):
    store("stars", rows_of(["1", "2", "4.5"]), kind="labels")
    yaml = "task: regression\ndata: {dataset_name: stars@1}\ntraining: {metric_for_best_model: mae}"
    form = browser.post("/train/", {"do": "read", "yaml": yaml}).context["form"]
    assert (form["task"].value(), form["training.metric_for_best_model"].value()) == ("regression", "mae")


@pytest.mark.medium
def test_pages_of_a_run_in_progress_show_the_metrics_of_its_type(browser, store):
    store("numbers", score_rows(), kind="scores")
    browser.post("/train/", form_of(browser.get("/train/?dataset=numbers@1")))
    task = Task.objects.get()
    for step, rmse in ((1, 2.0), (2, 1.5)):
        scores = {"loss": rmse, "rmse": rmse, "mae": rmse / 2, "r2": 0.1}
        Point.objects.create(task=task, step=step, epoch=1, loss=rmse, eval_loss=rmse, scores=scores)
    Task.objects.update(status=Status.STARTED)
    page = browser.get(f"/runs/{task.pk}/").content.decode()
    assert "Root mean squared error (RMSE) on held-out rows, best so far: 1.5 at step 2." in page
    assert "1.5, still improving." in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "task", "reason"),
    [
        ("vit", "sequence_classification", "transformers has no sequence classification for its type, vit"),
        ("fnet", "multi_label_classification", "it mixes a text with its padding"),
        ("bart", "token_classification", "transformers has no token classification for its type, bart"),
    ],
)
def test_base_model_that_cannot_learn_the_task_type_is_refused_at_every_door(
    api, browser, member, store, settings, tmp_path, model_type, task, reason
):
    settings.BASE_MODELS_DIR = tmp_path / "bases"
    shutil.copytree(base_model_path(), tmp_path / "bases/mine")
    (tmp_path / "bases/mine/config.json").write_text(json.dumps({"model_type": model_type}))
    spans = json.dumps([{"start": 0, "end": 4, "label": "word"}])
    rows = {
        "sequence_classification": rows_of(["good", "bad"]),
        "multi_label_classification": multi_label_rows(),
        "token_classification": [row | {"label": spans} for row in rows_of(["good"])],
    }[task]
    kinds = {"sequence_classification": "labels", "multi_label_classification": "multi_label"}
    config = config_for(store("data", rows, kind=kinds.get(task, "spans")), model={"name": "mine"})
    for address in ("/api/train", "/api/train/validate"):
        answer = api(member).post(address, config, format="json")
        assert answer.status_code == 400, answer.content
        (problem,) = answer.json()["errors"]
        assert problem["field"] == "model.name" and reason in problem["message"]
    with pytest.raises(InvalidError, match=reason):
        services.estimate(user=member, config=services.parse_config(config, member))
    page = browser.post("/train/", {"model.name": "mine", "data.dataset_name": config["data"]["dataset_name"]})
    assert reason in html.unescape(page.content.decode())
    assert not Task.objects.exists() and not Timing.objects.exists()
