"""Language models in other formats, from the page and the API: compared on held-out prompts, and downloaded."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.utils.html import escape

from datasets_app.versions.creation import create_version
from experiments.models import ModelExport, ModelVersion
from experiments.registry import card, export_jobs, exports
from testing.language_models import conversation, write_conversations
from testing.registered import register_language_model
from work.models import Status
from work.paths import exports_dir

pytestmark = pytest.mark.django_db
RESULT = {
    "texts": 100,
    "equal_answers": 0.9199,
    "largest_change": 0.33991,
    "mean_change": 0.02111,
    "compared_on": "chats@1",
}


@pytest.fixture
def assistant(
    member: Any, tmp_path: Path, settings: Any, language_bases: Path, monkeypatch: pytest.MonkeyPatch
) -> ModelVersion:
    """The member's registered language model `assistant`, with a dataset of 24 conversations of which 6 are held out."""
    settings.BASE_MODELS_DIR = language_bases
    rows = [conversation(f"Colour {n}?", f"{n} is red") for n in range(24)]
    splits = ["train", "eval", "train", "test"] * 3 + ["train"] * 12
    file = write_conversations(tmp_path / "chats.jsonl", rows, splits)
    data = create_version(user=member, name="chats", file=file, filename=file.name)
    monkeypatch.setattr("engine.export.compared_prompts.MOST_PROMPTS", 10)  # a hundred take seconds
    return register_language_model(member, "assistant", language_bases / "tiny", data)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("format", "file"),
    [
        ("gguf-f16", "Modelfile"),
        pytest.param("gguf-q8_0", "model.gguf", marks=pytest.mark.slow),
        pytest.param("safetensors", "model.safetensors", marks=pytest.mark.slow),
        pytest.param("peft", "adapter_model.safetensors", marks=pytest.mark.slow),
    ],
)
def test_language_model_is_exported_and_compared_on_its_held_out_prompts(format, file, assistant, member, api, browser):
    client = api(member)
    answer = client.post("/api/models/assistant/exports", {"format": format}, format="json")
    assert answer.status_code == 202, answer.json()
    export_jobs.run(answer.json()["task_id"])

    state = client.get(answer.json()["url"]).json()
    assert state["status"] == "SUCCESS", state["error"]
    result = state["result"]
    assert result["prompts"] == {"held_out": 6, "training": 4} and result["compared_on"] == "chats@1"
    assert 0 <= result["mean_change"] <= result["largest_change"] < 0.3 and result["equal_answers"] > 0.5
    content = b"".join(client.get(f"{state['url']}/archive").streaming_content)
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert {f"assistant-1-{format}/{name}" for name in (file, "README.md", "export.json")} <= {*names}
    sentence = exports.describe_comparison(result)
    assert escape(sentence) in browser.get("/models/assistant/").content.decode()
    assert f"**{format}:** {sentence}" in card.readme(assistant)


@pytest.mark.medium
def test_page_offers_the_formats_of_language_models_in_both_languages(assistant, browser, api, member):
    page = browser.get("/models/assistant/").content.decode()
    for format in ("safetensors", "gguf-f16", "gguf-q8_0", "peft"):
        assert f'name="format" value="{format}"' in page
    assert 'value="onnx"' not in page and "held-out ones first" in page
    assert (
        "vLLM 用的轉接器" in browser.get("/models/assistant/", headers={"accept-language": "zh-hant"}).content.decode()
    )
    answer = api(member).post("/api/models/assistant/exports", {"format": "onnx"}, format="json")
    assert answer.status_code == 400 and "safetensors, gguf-f16, gguf-q8_0, peft" in answer.json()["detail"]


@pytest.mark.medium
def test_export_that_answers_otherwise_fails_in_words_and_stores_nothing(assistant, member, api, monkeypatch):
    monkeypatch.setattr("engine.export.gguf_files.INTERLEAVED", ())  # positions in the wrong order
    export = exports.request_export(user=member, version=assistant, format="gguf-f16").export
    assert export is not None
    export_jobs.run(str(export.pk))
    export.refresh_from_db()
    assert export.status == Status.FAILURE and export.error and export.error["code"] == "export_differs"
    assert "On 10 prompts (6 held out, 4 of training rows, 0 parts of both)" in export.error["message"] and not list(
        exports_dir().iterdir()
    )


@pytest.mark.medium
def test_what_a_format_can_not_hold_is_refused_in_words(assistant, member):
    settings = assistant.folder / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"use_dora": True}))
    export = exports.request_export(user=member, version=assistant, format="peft").export
    assert export is not None
    export_jobs.run(str(export.pk))
    error = ModelExport.objects.get().error
    assert error and error["code"] == "export_refused" and "does not load DoRA" in error["message"]


def test_figures_of_a_language_model_are_sentences():
    figures = "Log-probabilities of expected tokens changed by 0.0212 on average and by at most 0.34, on 100 prompts."
    answers = "91.9% of the answers are the same, word for word."
    origin = "Compared on held-out rows of chats@1."
    assert exports.describe_comparison(RESULT) == f"{figures} {answers} {origin}"
    assert exports.describe_comparison(RESULT | {"equal_answers": None}) == f"{figures} {origin}"
    filled = RESULT | {"prompts": {"held_out": 6, "training": 18, "parts": 76}}
    assert "6 held-out rows of chats@1 and, as they are few, on 18 training rows and 76 parts" in (
        exports.describe_comparison(filled)
    )
    assert exports.describe_comparison(RESULT | {"prompts": {"held_out": 100}}).endswith(origin)
