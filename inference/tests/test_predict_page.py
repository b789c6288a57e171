"""The predict page shows answers of every task type, to single texts and to pairs, without JavaScript."""

import json
import re
from typing import Any

import pytest
from django.test import Client

from experiments.models import Alias, ModelVersion
from inference.tests.conftest import register_adapter

pytestmark = pytest.mark.django_db

PAIR = {"text": "Is the room clean?", "text_pair": "It was spotless."}


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


def change_answers(version: Any, **answers: Any) -> None:
    """Change what was fitted on held-out rows, before the model is loaded."""
    path = version.folder / "lorasite.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"answers": info["answers"] | answers}))


def text_of(page: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.content.decode()).split())


@pytest.mark.medium
def test_second_text_is_asked_for_where_the_model_reads_pairs(models, browser):
    for name, reads_pairs in (("single", False), ("pairs", True), ("multi", False), ("pair-score", True)):
        page = browser.get(f"/predict/?model={name}").content.decode()
        assert ('name="text_pair"' in page) is reads_pairs, name
    assert 'name="text_pair"' in browser.get("/predict/?model=single&second=pairs").content.decode()
    assert 'name="text_pair"' not in browser.get("/predict/?model=nothing").content.decode()


@pytest.mark.medium
def test_pair_is_answered_explained_and_kept_in_the_form(models, browser):
    page = browser.post("/predict/", PAIR | {"model": "pairs"})
    (answer,) = page.context["answers"]
    (explained,) = answer["explanations"]
    assert "".join(word.text for word in explained.content.pair_words) == PAIR["text_pair"]
    assert ">It was spotless.</textarea>" in page.content.decode()
    codes = {copy["title"]: copy["code"] for copy in page.context["copies"]}
    assert all("It was spotless." in code for code in codes.values())
    assert "--text-pair 'It was spotless.'" in codes["manage.py"] and "text_pair: It was spotless." in codes["YAML"]


@pytest.mark.medium
def test_missing_second_text_is_reported_beside_its_field(models, browser):
    page = browser.post("/predict/", {"text": "a day", "text_pair": "", "model": "pairs"})
    assert "reads two texts at once" in text_of(page) and 'name="text_pair"' in page.content.decode()


@pytest.mark.medium
def test_models_of_single_texts_and_of_pairs_are_compared(models, browser):
    page = browser.post("/predict/", PAIR | {"model": "single", "second": "pair-score"})
    assert [answer["task"] for answer in page.context["answers"]] == ["sequence_classification", "regression"]


@pytest.mark.medium
def test_labels_stand_with_their_probabilities_and_thresholds(models, browser):
    page = browser.post("/predict/", {"text": "a fine day", "model": "multi"})
    (answer,) = page.context["answers"]
    text = text_of(page)
    assert "30.0%" in text and "90.0%" in text and "Threshold" in text
    for label in answer["labels"]:
        assert f"{label} {100 * answer['probabilities'][label]:.1f}%" in text
    assert [each.label for each in answer["explanations"]] == sorted(
        answer["labels"], key=lambda name: -answer["probabilities"][name]
    )


@pytest.mark.medium
def test_text_without_any_label_says_so_and_explains_the_likeliest_one(models, browser):
    change_answers(models["multi"], thresholds=[1.0, 1.0, 1.0])
    page = browser.post("/predict/", {"text": "a fine day", "model": "multi"})
    (answer,) = page.context["answers"]
    assert "No label" in text_of(page) and answer["labels"] == []
    (explained,) = answer["explanations"]
    assert explained.label == max(answer["probabilities"], key=answer["probabilities"].__getitem__)


@pytest.mark.slow
def test_score_is_shown_and_explained_in_the_unit_of_the_data(models, browser):
    page = browser.post("/predict/", {"text": "a fine day", "model": "score", "method": "integrated_gradients"})
    (answer,) = page.context["answers"]
    text = text_of(page)
    assert f"Score {answer['score']:.3f}".rstrip("0").rstrip(".") in text and "the score" in text
    assert "Measured by integrated gradients" in text
    assert '<option value="integrated_gradients" selected>' in page.content.decode()


@pytest.mark.medium
@pytest.mark.parametrize("name", ["single", "multi"])
def test_answer_that_is_not_confident_says_what_that_means(models, browser, name):
    change_answers(models[name], confident_from=0.9999)
    text = text_of(browser.post("/predict/", {"text": "a fine day", "model": name}))
    assert "not sure" in text and "90% of" in text and "held-out rows" in text


@pytest.mark.medium
def test_confident_answer_raises_no_doubt(models, browser, monkeypatch):
    monkeypatch.setattr("inference.services.SURE", 1.1)
    change_answers(models["single"], confident_from=0.01)
    text = text_of(browser.post("/predict/", {"text": "a fine day", "model": "single"}))
    assert "not sure" not in text and "unsure" not in text


@pytest.mark.medium
def test_answer_stays_where_it_cannot_be_explained(models, browser, monkeypatch):
    def fail(*arguments: Any) -> Any:
        raise LookupError("the tokenizer does not tell where its tokens lie")

    monkeypatch.setattr("engine.serve.tokenizer.ServedTokenizer.find_tokens", fail)
    text = text_of(browser.post("/predict/", {"text": "a day", "model": "single", "method": "integrated_gradients"}))
    assert "predicted by single" in text and "choose leave_one_out" in text


@pytest.mark.medium
def test_labels_are_ranked_in_percent_and_those_after_the_fifth_are_folded(member, browser, fresh_predictor):
    labels = [f"label-{i}" for i in range(8)]
    register_adapter(member, "eight", labels)
    page = browser.post("/predict/", {"text": "a fine day", "model": "eight"})
    (answer,) = page.context["answers"]
    percents = [row["percent"] for row in answer["ranked"]]
    assert percents == sorted(percents, reverse=True) and answer["ranked"][0]["label"] == answer["label_name"]
    shown, folded = page.content.decode().split("Show all 8 labels")
    assert f"{percents[4]:.1f}%</span>" in shown and shown.count("<meter") == 5 and folded.count("<meter") == 3


@pytest.mark.medium
def test_answer_has_the_focus(models, browser):
    assert "autofocus" in browser.post("/predict/", {"text": "a day", "model": "single"}).content.decode()
    assert "autofocus" not in browser.get("/predict/?model=single").content.decode()


@pytest.mark.medium
def test_name_of_a_model_means_its_champion_on_the_page(models, browser):
    first = models["single"]
    Alias.objects.create(model=first.model, name="champion", version=first)
    second = ModelVersion.objects.create(
        model=first.model, number=2, author=first.author, labels=first.labels, base_model="b", config=first.config
    )
    first.model.latest = second
    first.model.save()
    page = browser.get("/predict/?model=single").content.decode()
    assert '<option value="single@champion" selected>' in page and '<option value="single@2">' in page
    answer = browser.post("/predict/", {"text": "a day", "model": "single"}).context["answers"][0]
    assert answer["model"] == "single@1"
