"""The points of a run's curves: what is stored of each, which of them are drawn, and all of them as CSV."""

import csv
from typing import Any

import pytest

from engine import events
from testing.belongings import belongings
from testing.datasets import store_dataset
from testing.experiments import row
from training import curves, selectors
from training.models import Point, Status, Task
from training.progress import TrainingProgress

pytestmark = pytest.mark.django_db


@pytest.fixture
def task(member: Any) -> Task:
    task = Task.objects.get(experiment=row(member, "run", metrics={}))
    # A progress is written only by the attempt that holds the task.
    Task.objects.filter(pk=task.pk).update(status=Status.STARTED, attempt=1, total_steps=60)
    task.refresh_from_db()
    return task


def add_points(task: Task, steps: range, every_evaluation: int = 0) -> None:
    Point.objects.bulk_create(
        Point(task=task, step=step, epoch=step / 100, loss=1 / step, eval_loss=0.5, accuracy=0.9)
        if every_evaluation and step % every_evaluation == 0
        else Point(task=task, step=step, epoch=step / 100, loss=1 / step)
        for step in steps
    )


def test_point_holds_the_mean_loss_and_its_place_on_every_axis(task: Task) -> None:
    progress = TrainingProgress(task, logging_steps=10)
    step = events.StepDone(
        10, 60, 0.5, 0.9, 1e-4, 1.5, 100, 1000.0, 9.0, mean_loss=0.7, total_tokens=4000, runtime_s=5.0
    )
    progress.add(step)
    progress.add(events.Evaluated(10, 0.5, {"accuracy": 0.8, "loss": 0.6}, 4000, 5.0))
    progress.write()
    point = Point.objects.get()
    assert (point.loss, point.grad_norm, point.tokens, point.runtime_s) == (0.7, 1.5, 4000, 5.0)
    assert point.accuracy == 0.8


@pytest.mark.medium
def test_long_run_is_drawn_from_few_points_with_the_last_one_and_all_evaluations(task: Task) -> None:
    add_points(task, range(1, 5001), every_evaluation=1234)
    steps = [point.step for point in selectors.points_to_draw(task)]
    assert len(steps) < 320 and steps[-1] == 5000 and {1234, 2468, 3702, 4936} <= set(steps)
    loss, scores, *_others = curves.charts(task.experiment.task_type, selectors.points_to_draw(task), task)
    assert loss["sources"][0] == f"/runs/{task.pk}/curves.csv" and scores["sources"] == [""]


def test_short_run_is_drawn_from_all_points(task: Task) -> None:
    add_points(task, range(1, 61))
    assert len(selectors.points_to_draw(task)) == 60
    loss = curves.charts(task.experiment.task_type, selectors.points_to_draw(task), task)[0]
    assert loss["sources"] == ["", ""] and loss["tracks"][0]["step"] == list(range(1, 61))


def test_axis_that_earlier_releases_did_not_store_is_not_offered(task: Task) -> None:
    add_points(task, range(1, 5))
    loss = curves.charts(task.experiment.task_type, selectors.points_to_draw(task), task)[0]
    assert [axis["key"] for axis in loss["axes"]] == ["step", "epoch"]
    Point.objects.update(tokens=10, runtime_s=1.0)
    loss = curves.charts(task.experiment.task_type, selectors.points_to_draw(task), task)[0]
    assert [axis["key"] for axis in loss["axes"]] == ["step", "epoch", "seconds", "tokens"]


@pytest.mark.parametrize(
    ("training", "facts", "expected"),
    [
        ({"eval_strategy": "steps", "eval_steps": 25}, {}, "25"),
        ({"eval_strategy": "steps", "eval_steps": 200}, {}, "60"),
        ({"eval_strategy": "no"}, {}, "60"),
        (
            {"eval_strategy": "epoch", "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
            {"train_rows": 330},
            "21",
        ),
    ],
)
def test_empty_score_chart_says_after_which_step_the_first_evaluation_is(
    task: Task, training: dict[str, Any], facts: dict[str, Any], expected: str
) -> None:
    task.facts = facts
    task.experiment.config = {"training": training}
    scores = curves.charts(task.experiment.task_type, [], task)[1]
    assert scores["empty"] == f"First point after step {expected}."


def test_majority_baseline_is_drawn_before_the_run_has_measured_it(task: Task, member: Any, tweets_csv: Any) -> None:
    version = store_dataset(member, "tweets", tweets_csv)
    task.experiment.version = version
    scores = curves.charts(task.experiment.task_type, [], task)[1]
    share = max(version.labels.values()) / version.rows
    assert scores["baselines"] == [{"label": "Majority-class baseline", "value": pytest.approx(share, abs=1e-4)}]


def test_csv_has_a_line_per_point_with_the_scores_of_evaluations(client: Any, member: Any) -> None:
    task = belongings(member, "private").task
    task.points.all().delete()
    add_points(task, range(1, 4), every_evaluation=3)
    Point.objects.filter(step=3).update(scores={"macro_f1": 0.7})
    client.force_login(member)
    answer = client.get(f"/runs/{task.pk}/curves.csv")
    assert answer["Content-Type"].startswith("text/csv") and "-curves.csv" in answer["Content-Disposition"]
    lines = list(csv.DictReader(answer.content.decode().splitlines()))
    assert [line["step"] for line in lines] == ["1", "2", "3"] and lines[0]["eval_accuracy"] == ""
    assert (lines[2]["eval_accuracy"], lines[2]["eval_macro_f1"], lines[2]["eval_loss"]) == ("0.9", "0.7", "0.5")
