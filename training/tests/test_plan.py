"""Beside the form stands what its values come to, and it follows each change."""

import re
from typing import Any

import pytest

from datasets_app.models import Finding
from testing.belongings import belongings
from training.models import Status, Timing
from training.plan import plan_run

pytestmark = pytest.mark.django_db

MEASURED = {
    "steps_per_epoch": 7, "step_s": 2.0, "warm_up_s": 0.0, "evaluation_s": 0.0, "prepare_s": 1.0, "save_s": 0.0,
    "end_s": 1.0, "peak_mb": 800.0, "micro_batch": 32,
}  # fmt: skip


@pytest.fixture
def version(member: Any) -> Any:
    version = belongings(member).version
    version.rows = 1000
    version.save()
    return version


def values(**training: Any) -> dict[str, Any]:
    return {"data": {"dataset_name": "mine@1"}, "training": training}


@pytest.mark.parametrize(
    ("training", "splits", "steps"),
    [
        ({"num_train_epochs": 1}, {}, 29),  # 900 rows of 32
        ({"num_train_epochs": 3}, {}, 87),
        ({"num_train_epochs": 3, "max_steps": 5}, {}, 5),
        ({"num_train_epochs": 1, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}, {}, 29),
        ({"num_train_epochs": 1}, {"train": 320, "eval": 680}, 10),
    ],
)
def test_steps_are_counted_before_anything_is_measured(
    member: Any, version: Any, training: dict[str, Any], splits: dict[str, int], steps: int
) -> None:
    version.splits = splits
    version.save()
    plan = plan_run(member, values(**training))
    assert plan.problem is None and plan.steps == steps and plan.estimate is None


def test_measurement_answers_for_other_epochs_without_a_new_one(member: Any, version: Any) -> None:
    from engine.config import RunConfig
    from training.estimates import cache_key
    from training.services import parse_config

    config: RunConfig = parse_config(values(num_train_epochs=3), member)
    Timing.objects.create(
        key=cache_key(config, version),
        owner=member,
        config={},
        result=MEASURED,
        status=Status.SUCCESS,
        device_kind="cpu",
    )
    plan = plan_run(member, values(num_train_epochs=30))
    assert plan.steps == 210 and plan.estimate and plan.estimate.forecast and plan.estimate.forecast.seconds == 422
    assert plan_run(member, values(per_device_train_batch_size=16)).estimate is None


def test_what_a_start_would_be_refused_with_is_told_at_once(member: Any, version: Any) -> None:
    problem = plan_run(member, values(num_train_epochs=-1, learning_rate=0)).problem
    assert problem and {item["field"] for item in problem.problems} == {
        "training.num_train_epochs", "training.learning_rate",
    }  # fmt: skip


def test_warnings_name_the_findings_the_missing_model_and_the_limit(
    member: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Finding.objects.create(version=version, code="label_imbalance", severity="warning", count=3, message="m")
    Finding.objects.create(version=version, code="markup", severity="info", count=3, message="m")
    member.queued_limit = 0
    member.save()
    config = values() | {"model": {"name": "someone/elsewhere"}}
    data, model, limit = plan_run(member, config).warnings
    assert "1 warning: Imbalanced labels." in data.text and data.href.startswith("/datasets/mine/?version=1")
    assert "someone/elsewhere is not on this machine, and downloads are turned off" in model.text
    assert "limit of queued runs" in limit.text
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "downloads it first" in plan_run(member, config).warnings[1].text


def test_sample_base_model_is_on_this_machine(member: Any, version: Any) -> None:
    assert plan_run(member, values()).warnings == []


@pytest.mark.medium
def test_form_has_three_blocks_and_its_card_follows_a_change(client: Any, member: Any, version: Any) -> None:
    client.force_login(member)
    page = client.get("/train/?dataset=mine@1").content.decode()
    assert re.findall(r"<legend>([^<]+)</legend>", page) == ["Data", "Model", "How long"]
    changed = {"do": "show", "data.dataset_name": "mine@1", "training.max_steps": "77", "model.name": ""}
    facts = client.post("/train/", changed, headers={"HX-Request": "true"}).content.decode()
    assert (
        re.search(r'id="plan-facts".* 77</dd>.*id="estimate"', facts, re.S)
        and "Not measured with these settings" in facts
    )
    refused = client.post("/train/", changed | {"training.max_steps": "-1"}, headers={"HX-Request": "true"})
    assert "1 setting needs fixing." in refused.content.decode()


@pytest.mark.medium
def test_form_starts_with_a_dataset_that_is_there(client: Any, member: Any, version: Any) -> None:
    client.force_login(member)
    page = client.get("/train/").content.decode()
    assert '<option value="mine@1" selected>' in page and "There is no dataset" not in page


def test_rows_that_are_held_out_are_not_counted_among_the_steps(member: Any, version: Any) -> None:
    config = values(num_train_epochs=1)
    config["data"]["eval_fraction"] = 0.5
    assert plan_run(member, config).steps == 16  # 500 rows of 32
