"""The Python client against a running server: typed answers of each task type, pairs of texts, explanations."""

import pytest
from lorasite_client import ApiError, Lorasite, Pair
from rest_framework_simplejwt.tokens import RefreshToken

from experiments.models import ModelExport
from testing.belongings import belongings
from testing.exports import CONTENT, store_export

pytestmark = pytest.mark.django_db(transaction=True)

PAIR: Pair = {"text": "Is the room clean?", "text_pair": "It was spotless."}


@pytest.fixture
def lorasite(live_server, member) -> Lorasite:
    return Lorasite(live_server.url, str(RefreshToken.for_user(member).access_token))


@pytest.mark.medium
def test_each_task_type_has_typed_answers(models, lorasite):
    single = lorasite.predict("a fine day", "single")
    assert single["label_name"] in single["probabilities"] and single["confident"] is None
    labels = lorasite.predict_labels("a fine day", "multi")
    assert labels["labels"] == [
        name for name, share in labels["probabilities"].items() if share >= labels["thresholds"][name]
    ]
    assert isinstance(lorasite.predict_score("a fine day", "score")["score"], float)
    with pytest.raises(TypeError, match="single is a model of sequence_classification, which gives no score"):
        lorasite.predict_score("a fine day", "single")
    with pytest.raises(TypeError, match="no list of labels"):
        lorasite.predict_labels("a fine day", "score")
    with pytest.raises(TypeError, match="single is a model of sequence_classification, which finds no entities"):
        lorasite.find_entities("a fine day", "single")


def test_base_models_are_listed_with_what_is_known_of_them(lorasite):
    sample, *others = lorasite.base_models()
    assert sample["on_this_machine"] and sample["languages"] == ["English"] and len(others) > 10
    assert {tuple(model["languages"]) for model in lorasite.base_models("character by character")} == {("Chinese",)}
    assert sample["name"] not in {model["name"] for model in lorasite.base_models(language="Chinese")}


@pytest.mark.medium
def test_pairs_are_sent_alone_and_in_a_list(models, lorasite):
    alone = lorasite.predict(PAIR["text"], "pairs", text_pair=PAIR["text_pair"])
    first, second = lorasite.predict_all([PAIR, {"text": "no", "text_pair": "yes"}], "pairs")
    assert first["probability"] == pytest.approx(alone["probability"], abs=2e-4) and second["label_name"] in (
        "no",
        "yes",
    )
    assert lorasite.predict_score(PAIR["text"], "pair-score", text_pair=PAIR["text_pair"])["task"] == "regression"
    (answer,) = lorasite.answer_all([PAIR], "pair-score")
    assert answer["task"] == "regression"
    with pytest.raises(ApiError) as refused:
        lorasite.predict("Is the room clean?", "pairs")
    assert refused.value.errors[0]["field"] == "text_pair"


@pytest.mark.slow
def test_answers_are_explained(models, lorasite):
    answer = lorasite.answer("a fine day", "multi", explain={"method": "integrated_gradients", "label": "staff"})
    (target,) = answer["explanation"]["targets"]
    assert target["label"] == "staff" and [word["text"] for word in target["words"]] == ["a", "fine", "day"]
    assert lorasite.answer("a fine day", "score", explain=True)["explanation"]["method"] == "leave_one_out"


def test_finished_export_is_not_made_again_and_is_downloaded(lorasite, member, tmp_path):
    store_export(belongings(member).model.latest, member, "onnx")
    export = lorasite.export_model("mine@1", "onnx")
    assert export["status"] == "SUCCESS" and export["result"]["equal_answers"] == 1.0
    assert lorasite.download_export("mine@1", "onnx", tmp_path / "new").read_bytes() == CONTENT
    assert ModelExport.objects.count() == 1
    with pytest.raises(ApiError, match="is not a valid choice"):
        lorasite.export_model("mine", "gguf")
