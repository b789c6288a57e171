"""Language models taken elsewhere: each format is loaded again and gives held-out answers the probabilities of the trained model."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from engine.config_sections import LoraSection
from engine.data.conversations import to_json
from engine.devices import DevicePlan
from engine.errors import ExportDiffersError, ExportRefusedError
from engine.export import export_model
from engine.export.__main__ import main
from engine.export.gguf_reading import READ_HERE
from engine.export.gguf_tokenizer import SPLITS, name_of_words
from engine.export.language_comparison import LanguageModelCheck, choose_conversations
from engine.export.modelfile import modelfile, translate
from engine.models.base_model_head import Head
from engine.models.chat_template import ChatTemplate
from engine.models.loading import add_adapter, load_language_model
from engine.serve.model_files import read_info
from engine.training.checkpoint import save_adapter
from samples import order_preferences, orders
from testing.chat_templates import CHATML, GEMMA, MISTRAL, TEMPLATES
from testing.language_models import build_language_model, chat_tokenizer, conversation

PLAN = DevicePlan(torch.device("cpu"), torch.float32, "eager", False, 1)
TEXTS = [to_json(messages) for messages in orders()["messages"].to_list()[:5]]
GGUF_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "phi3", "gemma", "smollm3")
FOUR_LAYERS: dict[str, dict[str, Any]] = {"smollm3": {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}}


def build_final_model(folder: Path, family: str = "llama", task: str = "causal_lm", **lora: Any) -> Path:
    """Write a base model under `bases`, and a final model with an adapter that changes something; return its folder."""
    base = build_language_model(folder / "bases" / "tiny", family, **FOUR_LAYERS.get(family, {}))
    config = json.loads((base / "config.json").read_text())
    if config.get("sliding_window"):
        (base / "config.json").write_text(json.dumps(config | {"sliding_window": None}))
    settings = LoraSection(r=4, target_modules="all-linear", **lora)
    model = add_adapter(load_language_model(base, "tiny", PLAN), settings, Head([], "kept", []), "tiny", 0, "causal")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    final = folder / "final_model"
    final.mkdir()
    save_adapter(model, final)
    chat_tokenizer().save_pretrained(final)
    facts: dict[str, Any] = {
        "task": task,
        "labels": [],
        "base_model": "tiny",
        "revision": None,
        "max_length": 500,
        "end_of_turn": "<|im_end|>",
    }
    (final / "lorasite.json").write_text(json.dumps(facts))
    return final


@pytest.mark.slow
@pytest.mark.parametrize("format", ["gguf-f16", "gguf-q8_0"])
@pytest.mark.parametrize("family", GGUF_FAMILIES)
def test_gguf_is_read_again_with_the_same_answers(family, format, tmp_path):
    final = build_final_model(tmp_path, family)
    check = export_model(final, tmp_path / "out", format, base_models_dir=tmp_path / "bases", texts=TEXTS)
    assert isinstance(check, LanguageModelCheck) and check.texts == 5
    assert check.equal_tokens == (None if family in READ_HERE else 1.0)
    assert check.largest_change < (0.01 if format == "gguf-f16" else 0.2)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.gguf", "Modelfile", "README.md", "export.json"} <= names
    report = json.loads((tmp_path / "out/export.json").read_text())
    assert report["check"]["largest_change"] == check.largest_change and report["limits"]["mean"] > 0
    assert check.sentence in (tmp_path / "out/README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["safetensors", "peft"])
def test_other_formats_are_read_again_with_the_same_answers_to_random_prompts(format, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.export.language_comparison.MOST_PROMPTS", 12)
    final = build_final_model(tmp_path, use_rslora=True)
    check = export_model(final, tmp_path / "out", format, base_models_dir=tmp_path / "bases")
    assert check.texts > 9 and check.equal_answers == 1.0 and check.largest_change < 1e-4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert ("adapter_config.json" in names) == (format == "peft") and "chat_template.jinja" in names
    if format == "safetensors":
        assert json.loads((tmp_path / "out/generation_config.json").read_text())[
            "eos_token_id"
        ] == chat_tokenizer().convert_tokens_to_ids("<|im_end|>")


def test_conversations_that_the_model_can_not_read_are_made_up_for_by_further_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.export.language_comparison.MOST_PROMPTS", 3)
    info = read_info(build_final_model(tmp_path))
    too_long = to_json(conversation("word " * 600, "yes"))
    compared = choose_conversations(
        ChatTemplate(chat_tokenizer(), "mine"), info, [too_long, *TEXTS[:2], too_long, *TEXTS[2:]]
    )
    assert [to_json(each) for each in compared.conversations] == TEXTS[:3] and len(compared.tokens.lengths) == 3
    with pytest.raises(ExportRefusedError, match="no conversation that the model can read"):
        choose_conversations(ChatTemplate(chat_tokenizer(), "mine"), info, [too_long])


@pytest.mark.slow
def test_preferences_are_compared_by_their_chosen_answers(tmp_path):
    final = build_final_model(tmp_path, task="preference")
    rows = [
        dict(zip(("prompt", "chosen", "rejected"), row[:3], strict=True))
        for row in order_preferences().head(8).iter_rows()
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(
            json.dumps(row | {"split": split}) + "\n"
            for row, split in zip(rows, ["train"] * 4 + ["eval", "eval", "test", "test"], strict=True)
        )
    )
    arguments = [str(final), str(tmp_path / "out"), "--base-models", str(tmp_path / "bases"), "--check", str(path)]
    assert main([*arguments, "--format", "peft"]) == 0
    assert json.loads((tmp_path / "out/export.json").read_text())["check"]["texts"] == 4


@pytest.mark.slow
def test_file_that_answers_otherwise_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    final = build_final_model(tmp_path)
    monkeypatch.setattr("engine.export.gguf_files.INTERLEAVED", ())
    with pytest.raises(ExportDiffersError, match="so they were removed"):
        export_model(final, tmp_path / "out", "gguf-f16", base_models_dir=tmp_path / "bases", texts=TEXTS)
    assert not any("out" in path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("family", "format", "lora", "reason"),
    [
        ("phi", "gguf-f16", {}, "Models of the type phi can't be exported to GGUF"),
        ("gpt2", "peft", {}, "it loads no adapters for models of the type gpt2"),
        ("llama", "peft", {"use_dora": True}, "does not load DoRA"),
        ("qwen2", "peft", {"modules_to_save": ["lm_head"]}, "modules that were trained in full"),
        ("llama", "peft", {"init_lora_weights": "pissa"}, "subtracted from the base model's weights"),
        ("llama", "onnx", {}, "causal_lm can't be exported to onnx"),
    ],
)
def test_what_can_not_be_said_exactly_is_refused_in_words(family, format, lora, reason, tmp_path):
    final = build_final_model(tmp_path, family, **lora)
    with pytest.raises(ExportRefusedError, match=reason):
        export_model(final, tmp_path / "out", format, base_models_dir=tmp_path / "bases", texts=TEXTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.medium
def test_norms_of_gemma_are_written_with_the_one_that_the_model_adds(tmp_path):
    final = build_final_model(tmp_path, "gemma")
    export_model(final, tmp_path / "out", "gguf-f16", base_models_dir=tmp_path / "bases", texts=TEXTS[:2])
    reader = gguf.GGUFReader(tmp_path / "out/model.gguf")
    norms = [tensor.data for tensor in reader.tensors if tensor.name.endswith("norm.weight")]
    assert len(norms) == 5 and all((norm == 1).all() for norm in norms)  # in a new model they are 0
    assert reader.fields["gemma.attention.key_length"].contents() == 8


def test_other_layers_without_positions_are_refused(tmp_path):
    final = build_final_model(tmp_path, "smollm3")
    path = tmp_path / "bases/tiny/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"no_rope_layers": [0, 1, 1, 1]}))
    with pytest.raises(ExportRefusedError, match="other layers are without positions"):
        export_model(final, tmp_path / "out", "gguf-f16", base_models_dir=tmp_path / "bases", texts=TEXTS)


def test_scaled_positions_are_refused(tmp_path):
    final = build_final_model(tmp_path)
    path = tmp_path / "bases/tiny/config.json"
    scaled = {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_parameters": scaled}))
    with pytest.raises(ExportRefusedError, match="its positions are scaled"):
        export_model(final, tmp_path / "out", "gguf-f16", base_models_dir=tmp_path / "bases", texts=TEXTS)


def test_tokenizers_are_named_by_how_they_cut_words():
    def content(*steps: dict[str, Any], kind: str = "BPE", normalizer: Any = None) -> dict[str, Any]:
        return {
            "model": {"type": kind},
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps]},
        }

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    assert name_of_words(content(byte_level)) == "gpt-2"
    assert name_of_words(content({"type": "Digits", "individual_digits": True}, byte_level)) == "smollm"
    for pattern, name in SPLITS.items():
        split = {"type": "Split", "pattern": {"Regex": pattern}}
        assert name_of_words(content(split, byte_level | {"use_regex": False})) == name
        with pytest.raises(ExportRefusedError, match="tokenizer can't be written to GGUF exactly"):
            name_of_words(content(split, byte_level))
    for other in (
        content(byte_level, kind="Unigram"),
        content({"type": "Metaspace"}),
        content(byte_level, normalizer={"type": "Lowercase"}),
    ):
        with pytest.raises(ExportRefusedError, match="tokenizer can't be written to GGUF exactly"):
            name_of_words(other)


def test_chat_template_is_said_in_the_language_of_ollama_where_that_is_exact():
    chatml = ChatTemplate(chat_tokenizer(CHATML), "mine")
    assert translate(chatml) == (
        '{{ if ne (index .Messages 0).Role "system" }}<|im_start|>system\nYou are helpful.<|im_end|>\n{{ end }}'
        '{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}<|im_start|>assistant\n'
    )
    for template in (MISTRAL, GEMMA):  # merge the system message into a question
        assert translate(ChatTemplate(chat_tokenizer(template), "mine")) is None
    assert "can't be said" in modelfile(ChatTemplate(chat_tokenizer(MISTRAL), "mine"), "</s>", "model.gguf")
    assert all(translate(ChatTemplate(chat_tokenizer(TEMPLATES[name][0]), "mine")) for name in ("llama-3", "zephyr"))
