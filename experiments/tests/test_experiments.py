"""Lists, comparison, downloads and deletion, over pages and API."""

import io
import zipfile
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.permissions import share
from audit.models import Entry
from experiments import services
from experiments.columns import COLUMNS, NAME
from experiments.models import Experiment
from lorasite.tests.rows import belongings
from training.models import Status, Task

pytestmark = pytest.mark.django_db

METRICS = {
    "labels": ["bad", "good"],
    "eval": {
        "accuracy": 0.8, "macro_f1": 0.79, "loss": 0.4, "confusion_matrix": [[8, 2], [2, 8]],
        "per_label": {name: {"precision": 0.8, "recall": 0.8, "f1": 0.8, "support": 10} for name in ("bad", "good")},
    },
    "baseline": {"majority_accuracy": 0.5, "linear_accuracy": 0.7},
    "worst": [{"text": "<script>alert(1)</script>", "label": "bad", "predicted": "good"}],
    "history": [{"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.5}, {"step": 2, "eval_accuracy": 0.8, "eval_macro_f1": 0.79}],
}  # fmt: skip


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


@pytest.fixture
def finished(member: Any) -> Experiment:
    """The member's finished experiment `mine-too`."""
    owned = belongings(member, "mine-too")
    Task.objects.filter(pk=owned.task.pk).update(status=Status.SUCCESS)
    Experiment.objects.filter(pk=owned.experiment.pk).update(metrics=METRICS, accuracy=0.8, macro_f1=0.79)
    return Experiment.objects.get(pk=owned.experiment.pk)


def row(owner: Any, name: str, **values: Any) -> Experiment:
    experiment = Experiment.objects.create(
        name=name, owner=owner, **({"dataset_name": "d@1", "base_model": "b", "metrics": METRICS} | values)
    )
    Task.objects.create(
        owner=owner, experiment=experiment, status=(values.get("accuracy") and Status.SUCCESS) or Status.FAILURE
    )
    return experiment


def names(page: Any) -> list[str]:
    return [experiment.name for experiment in page.context["page"]]


def test_list_is_sorted_with_runs_without_a_value_last(browser, member):
    for name, accuracy in (("low", 0.5), ("none", None), ("high", 0.9)):
        row(member, name, accuracy=accuracy)
    assert names(browser.get("/experiments/?sort=-accuracy")) == ["high", "low", "none"]
    assert names(browser.get("/experiments/?sort=accuracy")) == ["low", "high", "none"]
    assert names(browser.get("/experiments/?sort=name")) == ["high", "low", "none"]


@pytest.mark.parametrize(
    ("query", "found"),
    [("q=alp", ["alpha"]), ("status=FAILURE", ["beta"]), ("dataset=other@1", ["beta"]), ("base_model=b", ["alpha"]),
     ("q=alpha+d@1", ["alpha"]), ("q=alpha+nowhere", []), ("owner=me", ["alpha"])],
)  # fmt: skip
def test_list_is_filtered(browser, member, stranger, query, found):
    row(member, "alpha", accuracy=0.5)
    share(row(stranger, "beta", dataset_name="other@1", base_model="c"), to=member)
    assert names(browser.get(f"/experiments/?{query}")) == found


@pytest.mark.parametrize("query", ["sort=owner__password", "sort=-metrics", "status=DONE", "owner=admin"])
def test_unknown_filter_is_refused_on_page_and_api(browser, api, member, query):
    assert browser.get(f"/experiments/?{query}").status_code == 400
    answer = api(member).get(f"/api/experiments/mine?{query}")
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == query.split("=")[0]


@pytest.mark.parametrize("column", [column.key for column in (NAME, *COLUMNS)])
def test_list_is_sorted_both_ways_by_every_column(browser, member, stranger, column):
    high = {"accuracy": 0.9, "macro_f1": 0.9, "eval_loss": 0.9, "tokens_per_second": 9.0, "runtime_s": 9.0}
    share(row(stranger, "top", dataset_name="e@1", base_model="c", **high), to=member)
    low = row(member, "low", **{name: value / 9 for name, value in high.items()})
    Task.objects.filter(experiment=low).update(status=Status.FAILURE)
    Experiment.objects.filter(name="low").update(created_at=timezone.now() - timedelta(days=1))
    up, down = (names(browser.get(f"/experiments/?sort={sign}{column}")) for sign in ("", "-"))
    assert up == ["low", "top"] and down == ["top", "low"]


def test_a_second_click_on_a_head_turns_the_order(browser, member):
    row(member, "only", accuracy=0.5)
    orders = {
        "-accuracy": ("descending", "accuracy"),
        "accuracy": ("ascending", "-accuracy"),
        "name": ("", "-accuracy"),
    }
    for sort, (order, then) in orders.items():
        heads = {head["column"].key: head for head in browser.get(f"/experiments/?sort={sort}").context["heads"]}
        assert (heads["accuracy"]["order"], heads["accuracy"]["next"]) == (order, then)


def test_columns_are_those_of_the_address_and_stay_in_its_links(browser, member):
    row(member, "only", accuracy=0.5)
    page = browser.get("/experiments/?columns=owner&columns=loss")
    assert [column.key for column in page.context["shown"]] == ["owner", "loss"]
    assert b"columns=owner&amp;columns=loss&amp;sort=owner" in page.content
    assert browser.get("/experiments/?columns=owner__password").status_code == 400


def test_best_value_of_each_column_is_marked(browser, member):
    row(member, "slow", accuracy=0.9, runtime_s=20.0)
    row(member, "fast", accuracy=0.8, runtime_s=10.0)
    row(member, "failed")
    page = browser.get("/experiments/?columns=accuracy&columns=loss&columns=duration&sort=name")
    marks = {line["experiment"].name: [cell["best"] for cell in line["cells"]] for line in page.context["lines"]}
    assert marks == {"slow": [True, False, False], "fast": [False, False, True], "failed": [False, False, False]}


def test_list_asks_the_database_as_often_for_many_rows_as_for_one(browser, member, django_assert_max_num_queries):
    for i in range(60):
        row(member, f"run-{i}", accuracy=0.5)
    with django_assert_max_num_queries(15):
        assert len(names(browser.get("/experiments/"))) == 50
    assert len(names(browser.get("/experiments/?page=2"))) == 10


def test_empty_list_and_empty_search_say_different_things(browser, member):
    assert b"There are no experiments yet" in browser.get("/experiments/").content
    assert b"Show all" in browser.get("/experiments/?q=nothing").content


def test_comparison_marks_the_best_and_shows_what_differs(browser, member):
    row(member, "slow", accuracy=0.9, runtime_s=20.0, config={"lora": {"r": 8}, "seed": 1})
    row(member, "fast", accuracy=0.8, runtime_s=10.0, config={"lora": {"r": 4}, "seed": 1})
    page = browser.get("/experiments/compare?name=slow&name=fast")
    best = {str(line["column"].title): [cell["best"] for cell in line["cells"]] for line in page.context["measures"]}
    assert best["Accuracy"] == [True, False] and best["Seconds"] == [False, True] and best["Macro F1"] == [False, False]
    assert page.context["settings"] == [{"title": "lora.r", "values": [8, 4]}]
    assert len(browser.get("/experiments/compare?name=slow&name=fast&all=1").context["settings"]) == 2
    assert page.context["chart"]["labels"] == [1, 2] and len(page.context["chart"]["series"]) == 2


def test_comparison_of_one_or_of_the_invisible_is_refused(browser, member, stranger):
    row(member, "own")
    row(stranger, "other")
    few = browser.get("/experiments/compare?name=own")
    assert few.status_code == 400 and b"Tick two to six" in few.content
    assert browser.get("/experiments/compare?name=own&name=other").status_code == 404


def test_detail_says_what_was_reached_beside_the_baselines(browser, finished):
    page = browser.get("/experiments/mine-too/")
    content = page.content.decode()
    assert "Right in 80.0 %" in content and "50.0 %" in content and "70.0 %" in content
    assert [chart["id"] for chart in page.context["charts"]] == ["loss", "metrics"]
    assert "<script>alert" not in content and "&lt;script&gt;alert" in content


def test_archive_holds_every_file_and_nothing_else(browser, finished):
    answer = browser.get("/experiments/mine-too/all.zip")
    packed = zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content)))
    assert packed.namelist() == ["mine-too/config.yaml"]
    assert packed.read("mine-too/config.yaml") == (finished.folder / "config.yaml").read_bytes()
    assert Entry.objects.filter(action="experiment.download").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../mine-too/config.yaml",
        "%2e%2e/x",
        "..%2fx",
        "%252e%252e/x",
        "/etc/passwd",
        "a%00b",
        "logs.txt/../config.yaml",
    ],
)
def test_only_listed_files_can_be_had(browser, api, member, finished, path):
    (finished.folder / "link").symlink_to("/etc/passwd")
    for found in (browser.get(f"/experiments/mine-too/files/{path}"), browser.get("/experiments/mine-too/files/link")):
        assert found.status_code == 404
    assert api(member).get(f"/api/experiments/mine-too/files/{path}").status_code == 404


def test_file_of_the_api_is_the_file(api, member, finished):
    answer = api(member).get("/api/experiments/mine-too/files/config.yaml")
    assert b"".join(answer.streaming_content) == (finished.folder / "config.yaml").read_bytes()


def test_detail_of_the_api_has_the_shape_of_the_specification(api, member, finished):
    answer = api(member).get("/api/experiments/mine-too").json()
    assert {
        "experiment", "task_id", "status", "owner", "dataset", "dataset_hash", "base_model", "config", "metrics", "files",
        "created_at",
    } <= answer.keys()  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_deletion_removes_row_run_and_files(browser, finished):
    folder = finished.folder
    assert browser.post("/experiments/mine-too/delete/").status_code == 302
    assert not folder.exists() and not list(folder.parent.glob(".deleted-*"))
    assert not Experiment.objects.exists() and not Task.objects.exists()
    assert Entry.objects.filter(action="experiment.delete").exists()


def test_running_experiment_is_not_deleted(api, member, finished):
    Task.objects.update(status=Status.STARTED, started_at=timezone.now())
    answer = api(member).delete("/api/experiments/mine-too")
    assert answer.status_code == 409 and finished.folder.exists() and Experiment.objects.exists()


def test_folder_that_cannot_be_removed_keeps_the_experiment(api, member, finished, monkeypatch):
    from pathlib import Path

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    answer = api(member).delete("/api/experiments/mine-too")
    assert answer.status_code == 409 and "Permission denied" in answer.json()["title"]
    assert Experiment.objects.filter(name="mine-too").exists() and finished.folder.exists()


@pytest.mark.parametrize("name", ["mine", "compare", "Compare"])
def test_names_that_are_addresses_are_refused(api, member, tweets_csv, name):
    from datasets_app.services import create_version

    create_version(user=member, name="tweets", file=tweets_csv, filename="tweets.csv")
    answer = api(member).post(
        "/api/train", {"experiment_name": name, "data": {"dataset_name": "tweets"}}, format="json"
    )
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "experiment_name"


def test_page_says_beside_the_field_that_a_name_is_an_address(browser, member, tweets_csv):
    from datasets_app.services import create_version

    create_version(user=member, name="tweets", file=tweets_csv, filename="tweets.csv")
    page = browser.post("/train/", {"experiment_name": "mine", "data.dataset_name": "tweets"})
    assert page.status_code == 400 and page.context["form"]["experiment_name"].errors
    assert not Experiment.objects.exists()


def test_name_is_taken_in_any_case_because_some_disks_do_not_tell_them_apart(member):
    row(member, "First")
    with pytest.raises(services.NameTaken) as refused:
        services.create(owner=member, name="first", config={}, version=None, dataset_name="a/b", base_model="b")
    assert refused.value.facts["suggestion"] == "first-2"
