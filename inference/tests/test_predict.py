"""What a trained model says, by API and page."""

import json
import shutil
from typing import Any

import pytest
from django.test import Client

from engine.config_sections import SAMPLE_MODEL
from engine.models.base_models import resolve
from engine.models.weights_hash import hash_base_weights
from engine.serve.answers import EntitiesPrediction, EntityAnswer
from inference.answers import format_content
from inference.services import predictor, rival
from testing.adapters import temperature_of

pytestmark = pytest.mark.django_db

SHAPE = {"label": int, "probability": float, "latency_ms": float, "base_model": str, "language": str, "label_name": str}


@pytest.fixture(autouse=True)
def fresh_predictor() -> None:
    predictor.cache_clear()


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


def post_predict(api: Any, user: Any, **body: Any) -> Any:
    return api(user).post("/api/predict", body, format="json")


@pytest.mark.medium
def test_answer_has_the_shape_of_the_specification(api, member, model):
    answer = post_predict(api, member, text="What a lovely day!", model="small").json()
    assert {name: type(answer[name]) for name in SHAPE} == SHAPE
    assert answer["label_name"] in answer["probabilities"] and sum(answer["probabilities"].values()) == pytest.approx(
        1, abs=1e-3
    )
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["language"] == "English" and answer["model"] == "small" and answer["truncated"] is False


def test_entities_have_the_shape_of_the_specification():
    prediction = EntitiesPrediction((EntityAnswer("Taipei", 10, 16, "place", 0.98004),))
    entity = {"text": "Taipei", "start": 10, "end": 16, "label": "place", "probability": 0.98}
    assert format_content(prediction) == {"task": "token_classification", "entities": [entity]}


@pytest.mark.slow
def test_answers_are_those_of_plain_peft(api, member, model, sentences):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from engine import resolve_base_model

    base = AutoModelForSequenceClassification.from_pretrained(resolve_base_model(model.base_model), num_labels=3)
    plain = PeftModel.from_pretrained(base, model.final_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model.final_model)
    answers = post_predict(api, member, texts=sentences, model="small").json()
    for text, answer in zip(sentences, answers, strict=True):
        assert answer["label_name"] == max(answer["probabilities"], key=answer["probabilities"].__getitem__)
        with torch.inference_mode():
            logits = plain(**tokenizer(text, truncation=True, max_length=24, return_tensors="pt")).logits
        logits = logits / temperature_of(model.final_model)
        assert answer["label"] == int(logits.argmax())
        assert list(answer["probabilities"].values()) == pytest.approx(logits.softmax(-1)[0].tolist(), abs=1e-4)


@pytest.mark.slow
def test_list_of_texts_gives_a_list_in_their_order(api, member, model, sentences):
    together = post_predict(api, member, texts=sentences, model="small").json()
    alone = [post_predict(api, member, text=text, model="small").json() for text in sentences]
    for one, other in zip(together, alone, strict=True):
        assert one["label"] == other["label"] and one["probability"] == pytest.approx(other["probability"], abs=2e-4)


@pytest.mark.medium
def test_language_of_the_text_is_told(api, member, model):
    answers = post_predict(api, member, texts=["房間很乾淨,服務也很好。", "The room was clean."], model="small").json()
    assert [answer["language"] for answer in answers] == ["Chinese", "English"]


@pytest.mark.medium
def test_long_text_is_cut_and_said_to_be(api, member, model):
    assert post_predict(api, member, text="very " * 100, model="small").json()["truncated"] is True


@pytest.mark.parametrize(
    "body", [{}, {"text": ""}, {"text": " "}, {"texts": []}, {"texts": ["a"] * 65}, {"text": "a" * 20_001}, {"text": "a", "texts": ["a"]}]
)  # fmt: skip
def test_bad_request_is_refused_with_its_field(api, member, model, body):
    answer = post_predict(api, member, **body)
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] in ("text", "texts")


def test_model_is_not_found_for_a_stranger(api, stranger, model):
    assert post_predict(api, stranger, text="a day", model="small").status_code == 404


@pytest.mark.medium
def test_without_a_name_the_best_visible_model_answers(api, member, stranger, model):
    assert post_predict(api, member, text="a day").json()["model"] == "small"
    assert post_predict(api, stranger, text="a day").status_code == 409


@pytest.mark.medium
def test_model_whose_files_are_gone_is_told_in_words(api, member, model):
    assert post_predict(api, member, text="a day", model="small").status_code == 200
    shutil.rmtree(model.final_model)
    answer = post_predict(api, member, text="a day", model="small")
    assert answer.status_code == 409 and "can't be loaded" in answer.json()["title"]


def test_model_whose_files_are_damaged_is_told_in_words(api, member, model):
    (model.final_model / "adapter_model.safetensors").write_bytes(b"not a tensor")
    answer = post_predict(api, member, text="a day", model="small")
    assert answer.status_code == 409 and str(model.folder) not in answer.content.decode()


def test_model_whose_base_model_was_replaced_is_not_answered(api, member, model):
    facts = json.loads((model.final_model / "lorasite.json").read_text())
    assert facts["base_model_hash"] == hash_base_weights(resolve(SAMPLE_MODEL, None), SAMPLE_MODEL)
    (model.final_model / "lorasite.json").write_text(json.dumps(facts | {"base_model_hash": "0" * 64}))
    answer = post_predict(api, member, text="a day", model="small")
    assert answer.status_code == 409 and "trained on other weights of the base model" in answer.json()["detail"]


def test_fault_while_answering_is_told_in_words(api, member, model, monkeypatch):
    def fail(*arguments):
        raise IndexError("index out of range in self")

    monkeypatch.setattr("engine.serve.tokenizer.ServedTokenizer.encode", fail)
    answer = post_predict(api, member, text="a day", model="small")
    assert answer.status_code == 409 and "small can't answer" in answer.json()["title"]
    assert answer.json()["errors"][0]["field"] == "model"


@pytest.mark.medium
def test_model_that_was_trained_anew_is_not_answered_from_memory(api, member, model):
    before = post_predict(api, member, text="a day", model="small").json()
    weights = model.final_model / "adapter_model.safetensors"
    from safetensors.numpy import load_file, save_file

    save_file({name: -tensor for name, tensor in load_file(weights).items()}, weights)
    assert post_predict(api, member, text="a day", model="small").json()["probabilities"] != before["probabilities"]


@pytest.mark.medium
def test_page_shows_every_label_and_the_words_that_mattered(browser, model):
    page = browser.post("/predict/", {"model": "small", "text": "What a lovely day!"})
    (answer,) = page.context["answers"]
    content = page.content.decode()
    assert all(name in content for name in answer["probabilities"]) and '<meter class="bar"' in content
    (explained,) = answer["explanations"]
    assert "".join(word.text for word in explained.content.words) == "What a lovely day!"
    assert explained.label == answer["label_name"] and "Word importance" in content


@pytest.mark.medium
def test_two_models_stand_side_by_side(browser, model):
    page = browser.post("/predict/", {"model": "small", "second": "small", "text": "What a lovely day!"})
    assert len(page.context["answers"]) == 2


@pytest.mark.medium
def test_copies_ask_the_same(browser, model):
    page = browser.post("/predict/", {"model": "small", "text": "it's a day"})
    codes = {copy["title"]: copy["code"] for copy in page.context["copies"]}
    assert codes.keys() == {"curl", "Python", "JavaScript", "manage.py", "YAML"}
    assert "/api/predict" in codes["curl"] and codes["YAML"] == "text: it's a day\nmodel: small\n"
    assert """'it'"'"'s a day'""" in codes["manage.py"]


def test_mistake_is_told_on_the_page(browser, model):
    assert "not empty" in browser.post("/predict/", {"model": "small", "text": " "}).content.decode()


@pytest.mark.slow
def test_doubt_and_a_cut_are_said_on_the_page(browser, model, monkeypatch):
    """The old rule counts for models whose probabilities were not calibrated."""
    facts = json.loads((model.final_model / "lorasite.json").read_text())
    (model.final_model / "lorasite.json").write_text(json.dumps(facts | {"answers": {}}))
    monkeypatch.setattr("inference.services.SURE", 1.1)
    page = browser.post("/predict/", {"model": "small", "text": "very " * 100})
    assert (
        "The model is not sure" in page.content.decode() and "longer than the model can read" in page.content.decode()
    )
    (answer,) = page.context["answers"]
    assert answer["rival"] == sorted(answer["probabilities"].items(), key=lambda item: -item[1])[1]


def test_second_model_of_the_address_is_chosen(browser, model):
    page = browser.get("/predict/?model=small&second=small&text=hello").content.decode()
    assert page.count('<option value="small" selected>') == 2 and ">hello</textarea>" in page


def test_model_of_somebody_else_is_neither_offered_nor_answered(client, stranger, model):
    client.force_login(stranger)
    assert "small" not in client.get("/predict/").content.decode()
    assert "answers" not in client.post("/predict/", {"model": "small", "text": "a day"}).context


@pytest.mark.parametrize(
    ("shares", "near"),
    [((0.1, 0.9), None), ((0.55, 0.45), 1), ((0.25, 0.15, 0.6), None), ((0.3, 0.1, 0.59), 0), ((0.62, 0.38), None),
     ((0.48, 0.62), 0), ((1.0,), None)],
)  # fmt: skip
def test_model_is_unsure_where_labels_are_close(shares, near):
    second = rival({str(label): share for label, share in enumerate(shares)})
    assert second == (None if near is None else (str(near), shares[near]))
