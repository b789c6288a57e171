"""Presets on the form: they change what they own, fit the data, and leave what was entered."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from datasets_app.versions.creation import create_version
from engine.presets import LEARNING_RATES, PRESETS, Goal, preset_settings
from engine.task_types import TaskType
from testing.datasets import store_dataset
from testing.entity_texts import make_entity_frame
from training.models import Task
from training.tests.test_pages import form_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(client: Client, member: Any, tweets_csv: Path, tmp_path: Path) -> Client:
    """A browser of somebody who has a dataset of tweets and one of entities."""
    store_dataset(member, "tweets", tweets_csv)
    file = tmp_path / "entities.parquet"
    make_entity_frame(60, 20, 1, ["en"]).write_parquet(file)
    create_version(user=member, name="entities", file=file, filename=file.name, kind="spans")
    client.force_login(member)
    return client


def values_of(page: Any) -> dict[str, str]:
    return {field.html_name: field.value() or "" for field in page.context["form"]}


@pytest.mark.medium
def test_preset_sets_what_it_owns_and_keeps_what_was_entered(browser: Client) -> None:
    entered = form_of(browser.get("/train/?dataset=tweets@1")) | {
        "experiment_name": "mine",
        "training.seed": "7",
        "training.class_weights": "{positive: 2.0}",
        "data.max_length": "a few",
    }
    page = browser.post("/train/", entered | {"do": "preset", "preset": "quick"})
    values = values_of(page)
    assert page.status_code == 200 and not Task.objects.exists()
    assert (values["lora.r"], values["data.train_samples"]) == ("8", "2000")
    kept = ("experiment_name", "training.seed", "training.class_weights", "data.max_length", "data.dataset_name")
    assert [values[name] for name in kept] == ["mine", "7", "{positive: 2.0}", "a few", "tweets@1"]
    assert "<code>lora.r</code>: 16 → 8" in page.content.decode()
    assert 'id="preset-quick"' in page.content.decode() and values["preset"] == "quick"
    again = browser.post("/train/", values | {"do": "preset", "preset": "balanced"})
    assert (values_of(again)["lora.r"], values_of(again)["data.train_samples"]) == ("16", "")


@pytest.mark.medium
def test_balanced_undoes_the_regularisation_of_best(browser: Client) -> None:
    best = values_of(browser.get("/train/?preset=best&dataset=tweets@1"))
    assert best["training.label_smoothing_factor"] and best["training.lr_scheduler_type"] == "cosine"
    page = browser.post("/train/", best | {"do": "preset", "preset": "balanced"})
    usual = values_of(browser.get("/train/?preset=balanced&dataset=tweets@1"))
    assert {**values_of(page), "token": ""} == {**usual, "token": ""}


@pytest.mark.medium
def test_loss_chosen_by_hand_stays_and_excludes_the_smoothing_of_best(browser: Client) -> None:
    entered = values_of(browser.get("/train/?dataset=tweets@1")) | {"training.loss": "focal"}
    page = browser.post("/train/", entered | {"do": "preset", "preset": "best"})
    values = values_of(page)
    assert (values["training.loss"], float(values["training.label_smoothing_factor"])) == ("focal", 0)
    assert "excludes the label smoothing of this preset" in page.content.decode()
    assert [plan for name, _, plan in page.context["goals"] if name == "best"] != [None]
    assert browser.post("/train/", values | {"do": "start"}).status_code == 302


@pytest.mark.medium
@pytest.mark.parametrize("name", PRESETS)
def test_preset_fits_the_task_type_of_the_dataset(browser: Client, name: Goal) -> None:
    tasks: dict[str, TaskType] = {"tweets@1": "sequence_classification", "entities@1": "token_classification"}
    for dataset, task in tasks.items():
        values = values_of(browser.get(f"/train/?preset={name}&dataset={dataset}"))
        expected = preset_settings(name, task)["training"]["learning_rate"]
        assert float(values["training.learning_rate"]) == expected


@pytest.mark.medium
def test_base_model_of_a_preset_comes_without_settings_for_single_labels(browser: Client) -> None:
    before = values_of(browser.get("/train/?dataset=entities@1"))
    after = values_of(browser.post("/train/", before | {"do": "preset", "preset": "roberta"}))
    different = {name for name in before if before[name] != after[name] and name not in ("token", "preset")}
    assert different == {"model.name"} and after["model.name"] == "roberta-base"


@pytest.mark.slow
def test_another_dataset_changes_what_the_preset_had_set_but_not_what_was_changed_by_hand(browser: Client) -> None:
    entered = values_of(browser.get("/train/?dataset=tweets@1")) | {"lora.r": "5"}
    page = browser.post("/train/", entered | {"do": "dataset", "data.dataset_name": "entities@1"})
    values = values_of(page)
    assert float(values["training.learning_rate"]) == LEARNING_RATES["token_classification"]
    assert values["lora.r"] == "5" and values["data.dataset_name"] == "entities@1"
    assert "<code>lora.r</code>" not in page.content.decode()
    back = values_of(browser.post("/train/", values | {"do": "dataset", "data.dataset_name": "tweets@1"}))
    assert {**back, "token": ""} == {**entered, "token": ""}


@pytest.mark.medium
def test_settings_of_an_earlier_run_stay_on_another_dataset(browser: Client) -> None:
    browser.post("/train/", form_of(browser.get("/train/?dataset=tweets@1")))
    like = values_of(browser.get(f"/train/?like={Task.objects.get().experiment.name}"))
    values = values_of(browser.post("/train/", like | {"do": "dataset", "data.dataset_name": "entities@1"}))
    assert values["training.learning_rate"] == like["training.learning_rate"]


@pytest.mark.medium
def test_empty_field_shows_the_default_of_the_task_type(browser: Client) -> None:
    for dataset, rate, modules in (("tweets@1", "0.0005", None), ("entities@1", "0.002", "all-linear")):
        form = browser.get(f"/train/?dataset={dataset}").context["form"]
        assert form.fields["training.learning_rate"].widget.attrs["placeholder"] == rate
        assert form.fields["lora.target_modules"].widget.attrs.get("placeholder") == modules


@pytest.mark.medium
def test_query_and_value_alone_can_be_chosen_where_they_are_not_the_default(browser: Client) -> None:
    entered = form_of(browser.get("/train/?dataset=entities@1")) | {"lora.target_modules": "null"}
    browser.post("/train/", entered)
    experiment = Task.objects.get().experiment
    assert experiment.config["lora"]["target_modules"] is None
    like = browser.get(f"/train/?like={experiment.name}")
    assert values_of(like)["lora.target_modules"] == "null"
