"""Answers of every task type, to single texts and to pairs, by API and `serve`."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from drf_spectacular.generators import SchemaGenerator

from engine.serve.model_files import read_info
from experiments.models import Experiment, RegisteredModel
from testing.adapters import logits_of_plain_peft

pytestmark = pytest.mark.django_db

COMMON = {"task", "latency_ms", "base_model", "language", "model", "truncated", "confident", "timing"}
PAIR = {"text": "Is the room clean?", "text_pair": "It was spotless."}


@pytest.fixture(params=["site", "serve"])
def post(request: Any, api: Any, member: Any, settings: Any) -> Any:
    """post(body) is the answer of /api/predict, or that of `make serve`."""
    if request.param == "site":
        return lambda body: api(member).post("/api/predict", body, format="json")
    settings.ROOT_URLCONF = "lorasite.model_server_urls"
    return lambda body: api(member).post("/predict", body, format="json")


@pytest.mark.slow
def test_answer_of_each_task_type_has_its_fields_and_the_models_numbers(models, post):
    single = post({"text": "a day", "model": "single"}).json()
    assert set(single) == COMMON | {"label", "probability", "label_name", "probabilities"}
    assert single["task"] == "sequence_classification" and single["confident"] is None

    multi = post({"text": "a day", "model": "multi"}).json()
    assert set(multi) == COMMON | {"labels", "probabilities", "thresholds"}
    assert multi["thresholds"] == {"noise": 0.3, "price": 0.5, "staff": 0.9}
    logits = logits_of_plain_peft(models["multi"].folder, ["a day"])[0]
    probabilities = (logits / logits.new_tensor([1.0, 2.0, 1.0])).sigmoid().tolist()
    assert list(multi["probabilities"].values()) == pytest.approx(probabilities, abs=1e-4)
    assert multi["labels"] == [name for name, p in multi["probabilities"].items() if p >= multi["thresholds"][name]]
    assert isinstance(multi["confident"], bool)

    score = post({"text": "a day", "model": "score"}).json()
    assert set(score) == COMMON | {"score"}
    expected = float(logits_of_plain_peft(models["score"].folder, ["a day"])[0, 0]) * 1.5 + 3
    assert score["score"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_pairs_are_answered_as_plain_peft_does_alone_and_in_a_list(models, post):
    second = {"text": "no", "text_pair": "I have been waiting for two hours. " * 5}
    alone = [post(pair | {"model": "pairs"}).json() for pair in (PAIR, second)]
    together = post({"texts": [PAIR, second], "model": "pairs"}).json()
    texts, text_pairs = zip(*((pair["text"], pair["text_pair"]) for pair in (PAIR, second)), strict=True)
    expected = logits_of_plain_peft(models["pairs"].folder, list(texts), list(text_pairs)).softmax(-1).tolist()
    for one, other, probabilities in zip(alone, together, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=2e-4)
        assert list(one["probabilities"].values()) == pytest.approx(probabilities, abs=2e-4)
    assert [answer["truncated"] for answer in alone] == [False, True]


@pytest.mark.medium
def test_list_takes_strings_and_objects_beside_each_other(models, post):
    answers = post({"texts": ["a day", {"text": "a night"}], "model": "score"}).json()
    assert len(answers) == 2 and answers[0]["score"] != answers[1]["score"]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"text": "a", "model": "pairs"}, "text_pair", "two texts at once"),
    ({"texts": ["a", "b"], "model": "pairs"}, "text_pair", "two texts at once"),
    (PAIR | {"model": "single"}, "text_pair", "reads one text"),
    ({"texts": [PAIR], "model": "score"}, "text_pair", "reads one text"),
    ({"texts": [PAIR, "a"], "model": "pairs"}, "texts", "with every text, or with none"),
    ({"texts": ["a", PAIR], "model": "single"}, "texts", "with every text, or with none"),
    ({"text": "a", "text_pair": " ", "model": "pairs"}, "text_pair", "not empty"),
    ({"text": " ", "text_pair": "a", "model": "pairs"}, "text", "not empty"),
    ({"text": "a", "text_pair": "b" * 20_001, "model": "pairs"}, "text_pair", "20000 characters"),
    ({"text": "a", "text_pair": "\ud800", "model": "pairs"}, "text_pair", "urrogate"),
    ({"texts": [{"text": "a", "text_pair": "\udfff"}], "model": "pairs"}, "texts", "urrogate"),
    ({"texts": [PAIR] * 65, "model": "pairs"}, "texts", "at most 64"),
    ({"texts": ["a"], "text_pair": "b", "model": "pairs"}, "text_pair", "in each object"),
    ({"text": "a", "text_pair": 3, "model": "pairs"}, "text_pair", "string"),
    ({"texts": [3], "model": "single"}, "texts", "Give a string, or an object"),
    ({"texts": [{"text_pair": "b"}], "model": "pairs"}, "texts", "required"),
    ({"texts": [{"text": "a", "txt_pair": "b"}], "model": "pairs"}, "txt_pair", "Unknown field"),
]


@pytest.mark.parametrize(("body", "field", "message"), REFUSED)
def test_wrong_input_is_refused_with_its_field(models, api, member, body, field, message):
    sent = api(member).generic("POST", "/api/predict", json.dumps(body), content_type="application/json")
    assert sent.status_code == 400, sent.content
    (error,) = sent.json()["errors"]
    assert error["field"].startswith(field) and message in error["message"]


@pytest.mark.slow
def test_answers_and_requests_are_those_of_the_schema(models, api, member):
    """A well-formed request is one of the schema, and an answer is exactly one of its alternatives."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    operation = schema["paths"]["/api/predict"]["post"]
    resolved = {"components": schema["components"]}
    request_schema = resolved | operation["requestBody"]["content"]["application/json"]["schema"]
    answered = resolved | operation["responses"]["200"]["content"]["application/json"]["schema"]
    for body in (
        {"text": "a day", "model": "single"},
        {"text": "a day", "model": "multi", "explain": True},
        {"text": "a day", "model": "score", "explain": {"method": "integrated_gradients"}},
        {"texts": ["a", {"text": "b"}], "model": "score"},
        {"texts": [PAIR, PAIR], "model": "pairs"},
        PAIR | {"model": "pair-score"},
    ):
        jsonschema_rs.validate(request_schema, body)
        jsonschema_rs.validate(answered, api(member).post("/api/predict", body, format="json").json())
    for body, _field, message in REFUSED:
        if "two texts" not in message and "reads one" not in message and "urrogate" not in message:
            with pytest.raises(jsonschema_rs.ValidationError):
                jsonschema_rs.validate(request_schema, body)


@pytest.mark.medium
def test_calibrated_model_that_is_never_sure_enough_is_not_confident(models, post):
    path: Path = models["single"].folder / "lorasite.json"
    info = json.loads(path.read_text())
    for answers, confident in (({}, None), ({"confident_from": None}, False), ({"confident_from": 0.01}, True)):
        path.write_text(json.dumps(info | {"answers": answers}))
        assert read_info(path.parent).confident_from is None or answers
        (path.parent / "adapter_model.safetensors").touch()  # so that the model is loaded again
        assert post({"text": "a day", "model": "single"}).json()["confident"] is confident


@pytest.mark.slow
@pytest.mark.parametrize("method", ["leave_one_out", "integrated_gradients"])
def test_explanation_has_the_weight_and_the_place_of_each_word(models, post, method):
    text, pair = " It's 🍰 good", "好 day"
    answer = post({"text": text, "text_pair": pair, "model": "pairs", "explain": {"method": method}}).json()
    assert answer["explanation"]["method"] == method
    (target,) = answer["explanation"]["targets"]
    assert target["label"] == answer["label_name"] and target["value"] == pytest.approx(answer["probability"], abs=1e-3)
    for content, words in ((text, target["words"]), (pair, target["text_pair_words"])):
        assert all(content[word["start"] : word["end"]] == word["text"] for word in words)
    names = [word["text"] for word in target["words"]]
    assert "It's" in names and "good" in names and [w["text"] for w in target["text_pair_words"]] == ["好", "day"]
    assert any(word["weight"] for word in target["words"])
    assert (target["completeness_error"] is None) is (method == "leave_one_out")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["leave_one_out", "integrated_gradients"])
def test_every_chosen_label_is_explained_or_the_one_that_is_named(models, post, method):
    answer = post({"text": "a fine day", "model": "multi", "explain": {"method": method}}).json()
    explained = [target["label"] for target in answer["explanation"]["targets"]]
    assert set(explained) == set(answer["labels"]) and explained
    (target,) = post({"text": "a fine day", "model": "multi", "explain": {"method": method, "label": "staff"}}).json()[
        "explanation"
    ]["targets"]
    assert target["label"] == "staff" and target["value"] == pytest.approx(answer["probabilities"]["staff"], abs=1e-3)


@pytest.mark.medium
def test_score_is_explained_in_its_unit(models, post):
    texts = ["a fine day", "a  day"]
    whole, without = (post({"text": text, "model": "score"}).json()["score"] for text in texts)
    explanation = post({"text": texts[0], "model": "score", "explain": True}).json()["explanation"]
    (target,) = explanation["targets"]
    assert explanation["method"] == "leave_one_out" and target["label"] is None
    assert target["words"][1]["text"] == "fine" and target["words"][1]["weight"] == pytest.approx(
        whole - without, abs=1e-3
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"texts": ["a"], "explain": True}, "explain"),
        ({"text": "a", "explain": "yes"}, "explain"),
        ({"text": "a", "explain": {"method": "magic"}}, "explain.method"),
        ({"text": "a", "explain": {"lable": "a"}}, "lable"),
        ({"text": "a", "explain": {"label": "nothing"}}, "explain.label"),
        ({"text": "a", "model": "score", "explain": {"label": "a"}}, "explain.label"),
    ],
)
def test_wrong_explanation_is_refused_with_its_field(models, post, body, field):
    refused = post({"model": "multi"} | body)
    assert refused.status_code == 400 and refused.json()["errors"][0]["field"] == field


def test_answer_is_explained_only_on_request(models, post):
    assert "explanation" not in post({"text": "a", "model": "single", "explain": False}).json()


@pytest.mark.medium
def test_model_of_one_label_answers_requests_that_name_none(models, post, member):
    """Programs that name no model expect one label; a better score of another task type does not count."""
    for name, score, accuracy in (
        ("score", 0.99, None),
        ("multi", 0.95, None),
        ("single", 0.6, 0.6),
        ("pairs", 0.5, 0.5),
    ):
        version = models[name]
        for row in (version, version.model):
            row.score, row.accuracy = score, accuracy
            row.save()
    assert post({"text": "a day"}).json()["model"] == "single@1"
    RegisteredModel.objects.filter(name__in=("single", "pairs")).delete()
    assert post({"text": "a day"}).json()["model"] == "score@1"


@pytest.mark.medium
def test_experiment_without_an_accuracy_answers(models, post, member):
    run = Experiment.objects.create(
        name="run", owner=member, dataset_name="d@1", base_model="b", task_type="regression", score=0.4, eval_loss=0.3
    )
    shutil.copytree(models["score"].folder, run.final_model)
    assert isinstance(post({"text": "a day", "model": "run"}).json()["score"], float)
    RegisteredModel.objects.all().delete()
    assert post({"text": "a day"}).json()["model"] == "run"
