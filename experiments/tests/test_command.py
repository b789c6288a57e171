"""manage.py experiments does what the pages do."""

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from experiments.models import Experiment
from training.models import Status, Task

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("experiments", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def other(learnt: Experiment) -> Experiment:
    """Another run of the same person on the same data, with another rank."""
    config = learnt.config | {"lora": learnt.config["lora"] | {"r": 32}}
    made = Experiment.objects.create(
        name="other", owner=learnt.owner, dataset_name=learnt.dataset_name, base_model=learnt.base_model, config=config,
        metrics=learnt.metrics, accuracy=0.1,
    )  # fmt: skip
    Task.objects.create(owner=learnt.owner, experiment=made, status=Status.SUCCESS)
    return made


@pytest.mark.slow
def test_list_and_show_tell_people_in_lines_and_programs_in_json(learnt, other):
    lines = run("list", "--user", "member", "--sort=-accuracy").splitlines()
    assert lines[0].split() == ["experiment", "status", "score", "metric", "dataset", "base", "model"]
    assert [line.split()[0] for line in lines[1:]] == ["small", "other"]
    assert [row["experiment"] for row in json.loads(run("list", "--user", "member", "--q", "oth", "--json"))] == [
        "other"
    ]
    shown = run("show", "small", "--user", "member")
    assert "held-out" in shown and str(learnt.folder) in shown
    assert (
        json.loads(run("show", "small", "--user", "member", "--json"))["metrics"]["eval"]["accuracy"] == learnt.accuracy
    )


@pytest.mark.medium
def test_compare_gives_measures_and_the_settings_that_differ(learnt, other):
    comparison = json.loads(run("compare", "small", "other", "--user", "member", "--json"))
    assert comparison["measures"]["Accuracy"] == [learnt.accuracy, 0.1] and comparison["settings"] == {
        "lora.r": [4, 32]
    }
    assert any(
        line.split() == ["lora.r", "4", "32"]
        for line in run("compare", "small", "other", "--user", "member").splitlines()
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("show", "nothing"), 3), (("show", "small", "--user", "stranger"), 3), (("show", "small", "--user", "nobody"), 3),
     (("list", "--sort", "owner__password"), 2), (("compare", "small"), 2)],
)  # fmt: skip
def test_refusal_is_a_sentence_and_an_exit_status(
    learnt: Any, admin: Any, stranger: Any, arguments: Any, status: int
) -> None:
    chosen = arguments if "--user" in arguments else (*arguments, "--user", "admin")
    with pytest.raises(CommandError) as refused:
        run(*chosen)
    assert refused.value.returncode == status and str(refused.value)
