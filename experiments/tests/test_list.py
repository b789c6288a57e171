"""The list: filters, order, columns."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.permissions import grant_access
from experiments import services
from experiments.columns import COLUMNS, NAME
from experiments.models import Experiment
from lorasite.templatetags.numbers import number
from testing.experiments import METRICS, row
from training.models import Status, Task

pytestmark = pytest.mark.django_db


def names(page: Any) -> list[str]:
    return [experiment.name for experiment in page.context["page"]]


def test_list_is_sorted_with_runs_without_a_value_last(browser, member):
    for name, accuracy in (("low", 0.5), ("none", None), ("high", 0.9)):
        row(member, name, accuracy=accuracy)
    assert names(browser.get("/experiments/?sort=-accuracy")) == ["high", "low", "none"]
    assert names(browser.get("/experiments/?sort=accuracy")) == ["low", "high", "none"]
    assert names(browser.get("/experiments/?sort=name")) == ["high", "low", "none"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("q=alp", ["alpha"]), ("status=FAILURE", ["beta"]), ("dataset=other@1", ["beta"]), ("base_model=b", ["alpha"]),
     ("q=alpha+d@1", ["alpha"]), ("q=alpha+nowhere", []), ("owner=me", ["alpha"])],
)  # fmt: skip
def test_list_is_filtered(browser, member, stranger, query, expected):
    row(member, "alpha", accuracy=0.5)
    grant_access(row(stranger, "beta", dataset_name="other@1", base_model="c"), to=member)
    assert names(browser.get(f"/experiments/?{query}")) == expected


@pytest.mark.parametrize("query", ["sort=owner__password", "sort=-metrics", "status=DONE", "owner=admin"])
def test_unknown_filter_is_refused_on_page_and_api(browser, api, member, query):
    assert browser.get(f"/experiments/?{query}").status_code == 400
    answer = api(member).get(f"/api/experiments/mine?{query}")
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == query.split("=")[0]


@pytest.mark.parametrize("column", [column.key for column in (NAME, *COLUMNS)])
def test_list_is_sorted_both_ways_by_every_column(browser, member, stranger, column):
    high = {"accuracy": 0.9, "macro_f1": 0.9, "eval_loss": 0.9, "tokens_per_second": 9.0, "runtime_s": 9.0}
    grant_access(row(stranger, "top", dataset_name="e@1", base_model="c", **high), to=member)
    low = row(member, "low", **{name: value / 9 for name, value in high.items()})
    Task.objects.filter(experiment=low).update(status=Status.FAILURE)
    Experiment.objects.filter(name="low").update(
        created_at=timezone.now() - timedelta(days=1), task_type="multi_label_classification"
    )
    up, down = (names(browser.get(f"/experiments/?sort={sign}{column}", follow=True)) for sign in ("", "-"))
    assert up == ["low", "top"] and down == ["top", "low"]


def test_a_second_click_on_a_head_turns_the_order(browser, member):
    row(member, "only", accuracy=0.5)
    orders = {
        "-accuracy": ("descending", "accuracy"),
        "accuracy": ("ascending", "-accuracy"),
        "name": ("", "-accuracy"),
    }
    for sort, (order, then) in orders.items():
        heads = {
            head["column"].key: head
            for head in browser.get(f"/experiments/?columns=accuracy&sort={sort}").context["heads"]
        }
        assert (heads["accuracy"]["order"], heads["accuracy"]["next"]) == (order, then)


def test_columns_are_those_of_the_address_and_stay_in_its_links(browser, member):
    row(member, "only", accuracy=0.5)
    page = browser.get("/experiments/?columns=owner&columns=loss")
    assert [column.key for column in page.context["shown"]] == ["owner", "loss"]
    assert b"columns=owner&amp;columns=loss&amp;sort=owner" in page.content
    assert browser.get("/experiments/?columns=owner__password").status_code == 400


def test_best_scores_are_marked_and_the_fastest_only_where_that_is_asked(browser, member):
    row(member, "slow", accuracy=0.9, runtime_s=20.0)
    row(member, "fast", accuracy=0.8, runtime_s=10.0)
    row(member, "failed")

    def marks(sort: str) -> dict[str, list[bool]]:
        page = browser.get(f"/experiments/?columns=accuracy&columns=loss&columns=duration&sort={sort}")
        return {line["experiment"].name: [cell["best"] for cell in line["cells"]] for line in page.context["lines"]}

    assert marks("name") == {"slow": [True, False, False], "fast": [False, False, False], "failed": [False] * 3}
    assert marks("duration")["fast"] == [False, False, True]


def test_best_score_is_marked_only_among_runs_with_the_same_evaluation_rows(browser, member):
    sampled = {"data": {"eval_samples": 50}}
    runs: dict[str, dict[str, Any]] = {
        "easy": {"dataset_name": "easy@1", "accuracy": 1.0},
        "good": {"accuracy": 0.8},
        "better": {"accuracy": 0.9},
        "lucky": {"accuracy": 0.95, "config": sampled | {"training": {"seed": 1}}},
        "luckier": {"accuracy": 0.99, "config": sampled | {"training": {"seed": 2}}},
    }
    for name, values in runs.items():
        row(member, name, **values)
    lines = browser.get("/experiments/?columns=accuracy").context["lines"]
    assert [line["experiment"].name for line in lines if line["cells"][0]["best"]] == ["better"]


@pytest.mark.medium
def test_list_asks_the_database_as_often_for_many_rows_as_for_one(browser, member, django_assert_max_num_queries):
    for i in range(60):
        row(member, f"run-{i}", accuracy=0.5)
    with django_assert_max_num_queries(15):
        assert len(names(browser.get("/experiments/"))) == 40
    assert len(names(browser.get("/experiments/?page=2"))) == 20


def test_empty_list_and_empty_search_say_different_things(browser, member):
    assert b"There are no runs yet" in browser.get("/experiments/").content
    assert b"Show all" in browser.get("/experiments/?q=nothing").content


def test_lists_of_the_api_are_filtered_sorted_and_paged(api, member, admin, stranger):
    for name, accuracy in (("low", 0.5), ("high", 0.9), ("failed", None)):
        row(member, name, accuracy=accuracy)
    row(stranger, "other", accuracy=0.7)
    mine = api(member).get("/api/experiments/mine?status=SUCCESS&sort=-accuracy&limit=1").json()
    assert [line["experiment"] for line in mine["results"]] == ["high"] and mine["next"]
    everything = api(admin).get("/api/experiments?sort=accuracy").json()["results"]
    assert [line["experiment"] for line in everything] == ["low", "other", "high", "failed"]
    assert api(member).get("/api/experiments").status_code == 403


def test_scores_have_their_margin_and_as_many_digits_as_it_leaves(browser, member):
    Experiment.objects.filter(pk=row(member, "few", accuracy=0.92345).pk).update(score_margin=0.07)
    Experiment.objects.filter(pk=row(member, "many", accuracy=0.92345).pk).update(score_margin=0.004)
    row(member, "untold", accuracy=0.5, dataset_name="other@1")
    page = " ".join(browser.get("/experiments/?columns=score&columns=macro_f1").content.decode().split())
    assert '0.92 <span class="muted">±&nbsp;0.07</span>' in page
    assert '0.9235 <span class="muted">±&nbsp;0.004</span>' in page and page.count("±") == 2 and "0.5000" in page


def test_margin_is_stored_with_the_result(member, monkeypatch):
    monkeypatch.setattr(services, "check_model", lambda experiment: None)  # there are no files
    metrics = METRICS | {"train": {"tokens_per_second": 1.0, "runtime_s": 1.0}}
    services.record_result(experiment=row(member, "run"), metrics=metrics)
    assert Experiment.objects.get().score_margin == pytest.approx(0.175, abs=0.01)


def test_numbers_have_separators_and_a_minus_sign():
    assert (number(38158, 0), number(-0.125, 3), number(None, 2)) == ("38,158", "−0.125", "")
