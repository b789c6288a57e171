"""Language models taken elsewhere: each format is loaded again and gives held-out answers the probabilities of the trained model."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import TokenType

from engine import train
from engine.config import RunConfig
from engine.config_sections import LoraSection
from engine.data.conversations import from_text, to_json
from engine.devices import DevicePlan
from engine.errors import ExportDiffersError, ExportRefusedError
from engine.events import Notice
from engine.export import export_model
from engine.export.__main__ import main
from engine.export.compared_prompts import choose_conversations
from engine.export.gguf_reading import READ_HERE
from engine.export.gguf_tokenizer import SPLITS, GgufTokenizer, name_of_words
from engine.export.language_comparison import LanguageModelCheck
from engine.export.modelfile import modelfile, translate
from engine.models import plain_templates
from engine.models.base_model_head import Head
from engine.models.chat_template import ChatTemplate
from engine.models.loading import add_adapter, load_language_model
from engine.serve.model_files import read_info
from engine.training.checkpoint import save_adapter
from samples import order_preferences, orders
from testing.chat_templates import CHATML, GEMMA, MISTRAL, TEMPLATES
from testing.language_models import build_language_model, chat_tokenizer, conversation, piece_tokenizer

PLAN = DevicePlan(torch.device("cpu"), torch.float32, "eager", False, 1)
TEXTS = [to_json(messages) for messages in orders()["messages"].to_list()[:5]]
GGUF_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "phi3", "gemma", "smollm3")
FOUR_LAYERS: dict[str, dict[str, Any]] = {"smollm3": {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}}


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare on five prompts, because a hundred take seconds."""
    monkeypatch.setattr("engine.export.compared_prompts.MOST_PROMPTS", 5)


def build_final_model(
    folder: Path,
    family: str = "llama",
    task: str = "causal_lm",
    base_name: str = "tiny",
    tokenizer: Any = None,
    **lora: Any,
) -> Path:
    """Write a base model under `bases`, and a final model with an adapter that changes something; return its folder."""
    tokenizer = tokenizer or chat_tokenizer()
    base = build_language_model(
        folder / "bases" / base_name, family, tokenizer=tokenizer, **FOUR_LAYERS.get(family, {})
    )
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
    tokenizer.save_pretrained(final)
    facts: dict[str, Any] = {
        "task": task,
        "labels": [],
        "base_model": base_name,
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
@pytest.mark.parametrize(("words", "written_name"), [("pieces", "phi-3"), ("bytes", "model")])
def test_file_of_phi_3_has_its_name_only_with_the_tokens_that_llama_cpp_expects_then(words, written_name, tmp_path):
    tokenizer = piece_tokenizer(strips=True) if words == "pieces" else chat_tokenizer()
    final = build_final_model(tmp_path, "phi3", base_name="phi-3", tokenizer=tokenizer)
    export_model(final, tmp_path / "out", "gguf-f16", base_models_dir=tmp_path / "bases", texts=TEXTS[:2])
    fields = gguf.GGUFReader(tmp_path / "out/model.gguf").fields
    assert fields["general.name"].contents() == written_name
    assert fields["tokenizer.ggml.model"].contents() == ("llama" if words == "pieces" else "gpt2")
    assert ("tokenizer.ggml.scores" in fields) == (words == "pieces")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["safetensors", "peft"])
def test_other_formats_are_read_again_with_the_same_answers_to_random_prompts(format, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.export.compared_prompts.MOST_PROMPTS", 12)
    final = build_final_model(tmp_path, use_rslora=True)
    check = export_model(final, tmp_path / "out", format, base_models_dir=tmp_path / "bases")
    assert check.texts > 9 and check.equal_answers == 1.0 and check.largest_change < 1e-4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert ("adapter_config.json" in names) == (format == "peft") and "chat_template.jinja" in names
    if format == "safetensors":
        assert json.loads((tmp_path / "out/generation_config.json").read_text())[
            "eos_token_id"
        ] == chat_tokenizer().convert_tokens_to_ids("<|im_end|>")


def test_prompts_are_held_out_rows_then_training_rows_then_parts_of_both(tmp_path, monkeypatch):
    template, info = ChatTemplate(chat_tokenizer(), "mine"), read_info(build_final_model(tmp_path))
    monkeypatch.setattr("engine.export.compared_prompts.MOST_PROMPTS", 9)
    held_out, training = (
        [to_json(conversation(question, "yes"))] for question in ("one two three four five six", "這是一個問題")
    )
    compared = choose_conversations(template, info, held_out, training)
    assert compared.counts == {"held_out": 1, "training": 1, "parts": 7}
    questions = [each[0]["content"] for each in compared.conversations]
    assert questions[2:6] == ["one two three", "four five six", "這是一", "個問題"]
    assert len(set(questions)) == 9 == len(compared.tokens.lengths)
    assert choose_conversations(template, info, held_out * 12, training).counts == {"held_out": 9}
    assert choose_conversations(template, info, [to_json(conversation("a", "b"))]).counts == {"held_out": 1}
    text = to_json(from_text("Once upon a time there was a king. " * 40))
    windows = choose_conversations(template, replace(info, max_length=40, end_of_turn=None), [text], [text])
    assert windows.counts == {"held_out": 9} and len(windows.conversations) == 1


def test_conversations_that_the_model_can_not_read_are_made_up_for_by_further_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.export.compared_prompts.MOST_PROMPTS", 3)
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
    assert json.loads((tmp_path / "out/export.json").read_text())["check"]["prompts"] == {
        "held_out": 4,
        "training": 1,
    }


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
    assert name_of_words(content(byte_level), "tiny") == "gpt-2"
    assert name_of_words(content({"type": "Digits", "individual_digits": True}, byte_level), "tiny") == "smollm"
    for pattern, name in SPLITS.items():
        split = {"type": "Split", "pattern": {"Regex": pattern}}
        assert name_of_words(content(split, byte_level | {"use_regex": False}), "tiny") == name
        with pytest.raises(ExportRefusedError, match="tokenizer can't be written to GGUF exactly"):
            name_of_words(content(split, byte_level), "tiny")
    for other in (
        content(byte_level, kind="Unigram"),
        content({"type": "Metaspace"}),
        content(byte_level, normalizer={"type": "Lowercase"}),
    ):
        with pytest.raises(ExportRefusedError, match="tokenizer can't be written to GGUF exactly"):
            name_of_words(other, "tiny")


HARD_TEXTS = (
    " two  spaces ",
    "a\n\nb\tc",
    "這是繁體中文，有標點。",
    "👩‍👩‍👧 🎉",
    "two boxes of tea for Mei, 3.50 each",
    "naïve ▁",
    "x" * 40,
)


@pytest.mark.parametrize("adds_space", [True, False])
def test_merging_by_the_scores_of_pieces_gives_the_tokens_of_the_tokenizer(adds_space, tmp_path):
    tokenizer = piece_tokenizer(adds_space)
    tokenizer.save_pretrained(tmp_path)
    described = GgufTokenizer.describe(tokenizer, tmp_path, "tiny", len(tokenizer) + 3, tokenizer.eos_token_id)
    assert described.words == "llama" and described.adds_space == adds_space
    assert described.types.count(TokenType.BYTE) == 256 and described.types[1] == TokenType.CONTROL
    for text in HARD_TEXTS:
        assert merge_by_scores(described, text) == tokenizer(text, add_special_tokens=False)["input_ids"], text


def merge_by_scores(described: GgufTokenizer, text: str) -> list[int]:
    """Return the tokens of a text as llama.cpp finds them: the leftmost of the pairs with the highest score is merged first."""
    ids = {token: number for number, token in enumerate(described.tokens)}
    pieces = list(((" " if described.adds_space else "") + text).replace(" ", "▁"))
    while True:
        pairs = [left + right for left, right in pairwise(pieces)]
        known = [(described.scores[ids[pair]], -at) for at, pair in enumerate(pairs) if pair in ids]
        if not known:
            break
        at = -max(known)[1]
        pieces[at : at + 2] = [pairs[at]]
    found: list[int] = []
    for piece in pieces:
        found += [ids[piece]] if piece in ids else [ids[f"<0x{byte:02X}>"] for byte in piece.encode()]
    return found


def test_pieces_that_llama_cpp_would_find_otherwise_are_refused():
    content = json.loads(piece_tokenizer().backend_tokenizer.to_str())
    assert name_of_words(content, "tiny") == "llama"
    stripping = json.loads(piece_tokenizer(strips=True).backend_tokenizer.to_str())
    assert name_of_words(stripping, "microsoft/Phi-3-mini-4k-instruct") == "llama"
    model = content["model"]
    without_byte = {token: number for token, number in model["vocab"].items() if token != "<0x0A>"}
    for name, other in (
        ("tiny", stripping),
        ("phi-3", content),
        ("tiny", content | {"pre_tokenizer": {"type": "Metaspace"}}),
        ("tiny", content | {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}}),
        ("tiny", content | {"model": model | {"vocab": without_byte}}),
        ("tiny", content | {"model": model | {"merges": model["merges"][1:]}}),
        ("tiny", content | {"model": model | {"merges": model["merges"][::2] + model["merges"][1::2]}}),
    ):
        with pytest.raises(ExportRefusedError, match="tokenizer can't be written to GGUF exactly"):
            name_of_words(other, name)


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


@pytest.mark.parametrize("name", plain_templates.TEMPLATES)
def test_plain_template_is_said_in_the_language_of_ollama(name):
    template = ChatTemplate(chat_tokenizer(None), "mine", name)
    assert translate(template), name


@pytest.mark.slow
def test_chosen_template_is_that_of_the_trained_model_and_of_each_export(tmp_path):
    bases = tmp_path / "bases"
    build_language_model(bases / "llama", template=None)
    rows = tmp_path / "orders.jsonl"
    orders().head(40).write_ndjson(rows)
    config = RunConfig.parse(
        {
            "task": "causal_lm",
            "model": {"name": "llama", "chat_template": "alpaca"},
            "data": {"max_length": 400},
            "training": {"max_steps": 1, "per_device_train_batch_size": 4},
            "system": {"num_threads": 1, "forgetting_check": False},
        }
    )
    events = list(train(config, data_file=rows, results=tmp_path / "run", base_models_dir=bases))
    final = tmp_path / "run/artifacts/final_model"
    assert json.loads((final / "lorasite.json").read_text())["chat_template"] == "alpaca"
    assert any("Alpaca" in str(event.message) for event in events if isinstance(event, Notice))
    expected = plain_templates.TEMPLATES["alpaca"]
    assert (final / "chat_template.jinja").read_text() == expected
    for format in ("safetensors", "peft", "gguf-f16"):
        export_model(final, tmp_path / format, format, base_models_dir=bases, texts=TEXTS[:2])
    for format in ("safetensors", "peft"):
        assert (tmp_path / format / "chat_template.jinja").read_text() == expected
    fields = gguf.GGUFReader(tmp_path / "gguf-f16/model.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == expected
    assert "### Response:" in (tmp_path / "gguf-f16/Modelfile").read_text()
