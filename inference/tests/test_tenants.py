"""S16: models of two people over one base model, asked at the same moment, over the API."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from experiments.models import Experiment
from inference.services import predictor
from testing.adapters import make_adapter, predict_with_plain_peft

LABELS = {"member": ["bad", "good"], "stranger": ["negative", "neutral", "positive"]}
TEXTS = ["What a lovely day!", "no", "I have been waiting for two hours and nobody came."]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(root / name, labels, seed) for seed, (name, labels) in enumerate(LABELS.items())}


@pytest.fixture
def tenants(member: Any, stranger: Any, adapters: dict[str, Path]) -> dict[str, tuple[Any, Path]]:
    """Each has one finished experiment, `of-<name>`, with another number of labels."""
    predictor.cache_clear()
    return {person.username: (person, own(person, adapters[person.username])) for person in (member, stranger)}


def own(person: Any, adapter: Path) -> Path:
    name = f"of-{person.username}"
    made = Experiment.objects.create(name=name, owner=person, dataset_name="d", base_model="b", accuracy=0.5)
    return shutil.copytree(adapter, made.final_model)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_tenants_that_ask_at_once_get_the_answers_of_their_own_model_alone(tenants, api):
    alone = {name: predict_with_plain_peft(folder, TEXTS) for name, (_person, folder) in tenants.items()}
    clients = {name: api(person) for name, (person, _folder) in tenants.items()}

    def predict(number: int) -> None:
        name, text = list(tenants)[number % 2], number % len(TEXTS)
        sent = {"text": TEXTS[text], "model": f"of-{name}"}
        answer = clients[name].post("/api/predict", sent, format="json").json()
        connection.close()
        assert list(answer["probabilities"]) == LABELS[name]
        assert list(answer["probabilities"].values()) == pytest.approx(alone[name][text], abs=2e-4)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(predict, range(36)))
    assert len(predictor().state()["base_models"]) == 1 and predictor().state()["models"] == 2


@pytest.mark.django_db
@pytest.mark.parametrize("guess", ["of-stranger", "of-stranger@1", "OF-STRANGER", "of-stranger@champion", "../of-stranger",
                                   "of-stranger\x00", "results/of-stranger"])  # fmt: skip
def test_guessed_name_is_answered_as_one_that_nobody_has(tenants, api, guess):
    member = tenants["member"][0]
    guessed, unknown = (
        api(member).post("/api/predict", {"text": "a", "model": name}, format="json")
        for name in (guess, "nobody-has-it")
    )
    problem, problem_of_unknown = (
        {k: v for k, v in answer.json().items() if k != "request_id"} for answer in (guessed, unknown)
    )
    assert (
        guessed.status_code == unknown.status_code == 404 if "\x00" not in guess else guessed.status_code in (400, 404)
    )
    assert problem == problem_of_unknown or "\x00" in guess
    assert predictor().state()["models"] == 0  # nothing of it was even loaded
