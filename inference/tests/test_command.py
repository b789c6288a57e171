"""manage.py models and manage.py predict do what pages and API do."""

import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command

from audit.models import Entry
from experiments.models import Experiment, RegisteredModel
from experiments.registry import selectors
from inference.services import predictor
from testing.belongings import belongings
from testing.exports import store_export

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_predictor() -> None:
    predictor.cache_clear()


def run(command: str, *arguments: str, user: str = "member") -> str:
    out = io.StringIO()
    call_command(command, *arguments, "--user", user, stdout=out)
    return out.getvalue()


@pytest.mark.slow
def test_model_is_registered_found_named_shared_and_recommended(learnt: Experiment, stranger: Any, viewer: Any) -> None:
    assert run("models", "register", "small", "mood", "--summary", "Moods.").startswith("mood@1: ")
    (row,) = json.loads(run("models", "list", "--labels", "positive,negative,neutral", "--json"))
    assert (row["name"], row["version"], row["language"]) == ("mood", 1, "English")
    assert json.loads(run("models", "alias", "mood@1", "champion", "--json"))["aliases"] == {"champion": 1}
    with pytest.raises(CommandError) as refused:
        run("models", "show", "mood", user="stranger")
    assert refused.value.returncode == 3
    run("models", "share", "mood", "--to", "stranger")
    assert "negative, neutral, positive" in run("models", "show", "mood@champion", user="stranger")
    with pytest.raises(CommandError) as refused:
        run("models", "share", "mood", "--to", "viewer", user="stranger")
    assert refused.value.returncode == 4
    recommendation = json.loads(run("models", "recommend", "tweets", "--json"))
    assert recommendation["models"][0]["name"] == "mood" and recommendation["models"][0]["rows"] > 0
    assert "that it was not trained on" in run("models", "recommend", "tweets")
    assert Entry.objects.filter(action="share", object_id="mood").exists()


@pytest.mark.medium
def test_everyone_is_everybody_with_an_account_and_can_be_ended(learnt: Experiment, stranger: Any, viewer: Any) -> None:
    run("models", "register", "small", "mood")
    night = Group.objects.create(name="night shift")
    run("models", "share", "mood", "--to", "everyone")
    run("models", "share", "mood", "--to", "group:night shift", "--access", "manage")
    assert [selectors.model_for(person, "mood").name for person in (stranger, viewer)] == ["mood"] * 2
    run("models", "share", "mood", "--to", "everyone", "--access", "none")
    assert not selectors.models_for(stranger).exists()
    stranger.groups.add(night)
    assert selectors.model_for(stranger, "mood", manage=True) == RegisteredModel.objects.get()


def test_prediction_is_lines_for_people_and_json_for_programs(learnt: Experiment) -> None:
    answer = json.loads(run("predict", "--text", "a fine day", "--model", "small", "--json"))
    lines = run("predict", "--text", "a fine day", "--model", "small").splitlines()
    assert lines[0].startswith(f"{answer['label_name']}, predicted by small") and "English" in lines[0]
    shares = {line.split()[0]: float(line.split()[1]) for line in lines[1 : 1 + len(answer["probabilities"])]}
    assert shares == answer["probabilities"]


@pytest.mark.parametrize(
    ("text", "model", "status"), [("", "small", 2), ("a day", "nothing", 3), ("a day", "empty", 1)]
)
def test_refused_prediction_has_an_exit_status(learnt: Experiment, text: str, model: str, status: int) -> None:
    Experiment.objects.create(name="empty", owner=learnt.owner, dataset_name="d", base_model="b")
    with pytest.raises(CommandError) as refused:
        run("predict", "--text", text, "--model", model)
    assert refused.value.returncode == status


@pytest.mark.medium
def test_every_task_type_is_printed_and_pairs_are_read(models: Any) -> None:
    pair = ("--text", "Is it clean?", "--text-pair", "It was spotless.")
    assert run("predict", "--model", "pairs", *pair).startswith(("no, predicted by pairs", "yes, predicted by pairs"))
    answer = json.loads(run("predict", "--model", "pair-score", *pair, "--json"))
    assert run("predict", "--model", "pair-score", *pair).startswith(f"{answer['score']:.4g}, predicted by pair-score")
    answer = json.loads(run("predict", "--text", "a fine day", "--model", "multi", "--json"))
    first, *lines = run("predict", "--text", "a fine day", "--model", "multi").splitlines()
    assert first.startswith(f"{', '.join(answer['labels'])}, predicted by multi")
    assert [line.split()[1] for line in lines if line.startswith("✓")] == answer["labels"]


@pytest.mark.slow
def test_command_explains_an_answer(models: Any) -> None:
    lines = run("predict", "--text", "a fine day", "--model", "score", "--explain", "integrated_gradients").splitlines()
    assert lines[1] == "Words that count for the score:"
    assert {line.split()[1] for line in lines[2:]} == {"a", "fine", "day"}


def test_pair_for_a_model_of_single_texts_is_refused(models: Any) -> None:
    with pytest.raises(CommandError, match="reads one text") as refused:
        run("predict", "--text", "a", "--text-pair", "b", "--model", "single")
    assert refused.value.returncode == 2


@pytest.mark.django_db(transaction=True)
def test_export_is_queued_and_its_figures_are_printed(member: Any) -> None:
    store_export(belongings(member).model.latest, member)
    printed = run("models", "export", "mine", "onnx").splitlines()
    assert printed[1].startswith("safetensors") and "SUCCESS" in printed[1] and "100.00% of 60 texts" in printed[1]
    assert printed[2].startswith("onnx ") and "PENDING" in printed[2]
    states = json.loads(run("models", "export", "mine@1", "--json"))
    assert [state["status"] for state in states] == ["SUCCESS", "PENDING", None]
