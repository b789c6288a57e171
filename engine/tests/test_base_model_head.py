"""A base model's own head is used only where its label names say which row is which, and the run says what became of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from engine import Notice, devices
from engine.config_sections import LoraSection
from engine.models.base_model_head import row_order
from engine.models.loading import add_adapter, load_classifier
from engine.tests.conftest import metrics_of, run, small

LABELS = ["negative", "neutral", "positive"]
SIZES: dict[str, Any] = {"vocab_size": 50, "d_model": 16, "pad_token_id": 0, "num_labels": 3}


@pytest.fixture
def base_with_head(bases: Path, tmp_path: Path) -> Any:
    """Write the tiny base model with a head for these labels; return its folder and the head's weight."""

    def write(own_labels: list[str]) -> tuple[Path, torch.Tensor]:
        folder = Path(shutil.copytree(bases / "tiny", tmp_path / f"bases/{'-'.join(own_labels)}"[:100]))
        config = transformers.AutoConfig.from_pretrained(folder, num_labels=len(own_labels))
        config.id2label = dict(enumerate(own_labels))
        torch.manual_seed(1)
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
        return folder, load_file(folder / "model.safetensors")["classifier.weight"].clone()

    return write


def load(folder: Path, labels: list[str] = LABELS) -> tuple[Any, Any]:
    return load_classifier(folder, "mine", labels, devices.choose(small(training={"precision": "fp32"})))


def test_head_with_the_same_labels_is_kept(base_with_head: Any) -> None:
    folder, weight = base_with_head(LABELS)
    model, head = load(folder)
    assert head.origin == "kept" and torch.equal(model.classifier.weight, weight)


def test_rows_are_put_into_the_order_of_the_labels_case_aside(base_with_head: Any) -> None:
    folder, weight = base_with_head(["Positive", "NEUTRAL", "negative"])
    model, head = load(folder)
    assert head.origin == "reordered" and torch.equal(model.classifier.weight, weight.flip(0))
    assert model.classifier.bias.shape == (3,) and "order" in head.notices[0].message


@pytest.mark.parametrize("own_labels", [["LABEL_0", "LABEL_1", "LABEL_2"], ["contradiction", "neutral", "entailment"]])
def test_head_with_other_labels_becomes_new_and_the_notice_names_them(base_with_head: Any, own_labels) -> None:
    folder, weight = base_with_head(own_labels)
    model, head = load(folder)
    assert head.origin == "replaced" and not torch.isclose(model.classifier.weight, weight).any()
    assert model.classifier.weight.std() < 0.05 and not model.classifier.bias.any()
    assert own_labels[0] in head.notices[0].message


def test_head_of_another_size_becomes_new_and_the_notice_names_both_sizes(base_with_head: Any) -> None:
    folder, _weight = base_with_head(["1 star", "2 stars", "3 stars", "4 stars", "5 stars"])
    model, head = load(folder)
    assert head.origin == "replaced" and model.classifier.weight.shape == (3, 16)
    assert "5 outputs, and the data have 3 labels" in head.notices[0].message


def test_order_is_known_only_if_each_name_occurs_once() -> None:
    assert row_order(["b", "a "], ["A", "B"]) == [1, 0]
    assert row_order(["a", "A"], ["a", "A"]) is None and row_order(["a", "b"], ["a", "c"]) is None


@pytest.mark.slow
def test_run_says_what_became_of_the_head(base_with_head: Any, tweets: Path, tmp_path: Path) -> None:
    folder, _weight = base_with_head(LABELS[::-1])
    training = {"max_steps": 1, "num_train_epochs": 1}
    config = small(model={"name": folder.name}, lora={"layers_to_transform": None}, training=training)
    events = run(config, tweets, tmp_path / "run", base_models_dir=folder.parent)
    assert [event.code for event in events if isinstance(event, Notice)].count("base_model_head") == 1
    assert metrics_of(events)["data"]["base_model_head"] == "reordered"


def families() -> dict[str, Any]:
    """Return configurations of models whose head is not called classifier, with the modules of the head."""
    bart: dict[str, Any] = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    bart |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32, "eos_token_id": 2}
    t5: dict[str, Any] = {
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }
    xlnet: dict[str, Any] = {"n_layer": 1, "n_head": 2, "d_inner": 16}
    return {
        "bart": (transformers.BartConfig(**SIZES, **bart), ["classification_head"]),
        "t5": (transformers.T5Config(**SIZES, **t5), ["classification_head"]),
        "xlnet": (transformers.XLNetConfig(**SIZES, **xlnet), ["logits_proj", "sequence_summary"]),
    }


@pytest.mark.parametrize("family", ["bart", "t5", "xlnet"])
@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_own_head_of_any_name_is_trained_in_full_without_an_adapter(family: str, targets: Any, tmp_path: Path) -> None:
    config, heads = families()[family]
    config.id2label = dict(enumerate(LABELS))
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / family)
    model, head = load(tmp_path / family)
    assert head.origin == "kept" and head.modules == heads
    adapted: Any = add_adapter(model, LoraSection(target_modules=targets), head, family, 1)
    assert adapted.peft_config["default"].modules_to_save == heads
    in_head = [name for name, p in adapted.named_parameters() if p.requires_grad and any(h in name for h in heads)]
    assert in_head and all("modules_to_save" in name and "lora_" not in name for name in in_head)


@pytest.mark.slow
def test_saved_settings_list_each_trained_module_once(base_with_head: Any, tweets: Path, tmp_path: Path) -> None:
    folder, _weight = base_with_head(LABELS)
    training = {"max_steps": 1, "num_train_epochs": 1}
    lora = {"layers_to_transform": None, "modules_to_save": ["pooler"]}
    config = small(model={"name": folder.name}, lora=lora, training=training)
    run(config, tweets, tmp_path / "run", base_models_dir=folder.parent)
    settings = json.loads((tmp_path / "run/artifacts/final_model/adapter_config.json").read_text())
    assert settings["modules_to_save"] == ["classifier", "pooler"]
