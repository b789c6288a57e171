"""Weights that are missing, of another shape or no numbers end a run before its first step, with the tensor's name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import devices
from engine.errors import BaseModelUnavailableError
from engine.models.loaded_weights import brief
from engine.models.loading import load_classifier
from engine.tests.conftest import run, small

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def base(bases: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bases / "tiny", tmp_path / "bases/mine"))


def change(base: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(base / "model.safetensors").items()}
    edit(tensors)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


def refusal(base: Path) -> str:
    with pytest.raises(BaseModelUnavailableError) as caught:
        load_classifier(base, "mine", ["a", "b"], devices.choose(small(training={"precision": "fp32"})))
    assert caught.value.field == "model.name" and str(base.parent) not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "lost",
    ["bert.encoder.layer.0.output.LayerNorm.weight", "bert.encoder.layer.1.attention.self.query.bias"],
)
def test_missing_weight_outside_of_the_head_is_named(base: Path, lost: str) -> None:
    change(base, lambda tensors: tensors.pop(lost))
    assert f"asks for: {lost}." in refusal(base)


def test_missing_layer_and_other_names_are_refused_with_the_number_of_weights(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "bert.encoder.layer.2.attention.output.LayerNorm.bias and 15 more" in refusal(base)


def test_weight_of_another_shape_is_named_with_both(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 100}))
    assert "bert.embeddings.position_embeddings.weight has the shape 512 × 16 in its files" in refusal(base)


def test_missing_head_and_pooler_are_no_fault(base: Path) -> None:
    names = ("classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias")
    change(base, lambda tensors: [tensors.pop(name) for name in names])
    _model, head = load_classifier(base, "mine", ["a", "b"], devices.choose(small()))
    assert head.origin == "new" and head.modules == ["classifier", "pooler"] and not head.notices


@pytest.mark.parametrize(
    ("value", "fault"),
    [(float("nan"), "not finite"), (float("-inf"), "not finite"), (-3e7, "values up to 3.0e+07")],
)
def test_weight_that_is_no_sane_number_is_named(base: Path, value: float, fault: str) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    change(base, lambda tensors: tensors[name].view(-1)[5].fill_(value))
    assert f"{name} has" in refusal(base) and fault in refusal(base)


def test_embeddings_of_zeros_are_refused(base: Path) -> None:
    change(base, lambda tensors: tensors["bert.embeddings.word_embeddings.weight"].zero_())
    assert "all words are the same" in refusal(base)


def test_model_of_images_is_refused_in_one_line(base: Path) -> None:
    (base / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 16}))
    sentence = refusal(base)
    assert "no sequence classification for its type, vit." in sentence and len(sentence) < 250


@pytest.mark.medium
def test_run_ends_before_its_first_step(base: Path, tweets: Path, tmp_path: Path) -> None:
    change(base, lambda tensors: tensors.pop("bert.encoder.layer.1.attention.self.query.bias"))
    with pytest.raises(BaseModelUnavailableError, match=r"layer\.1\.attention\.self\.query\.bias"):
        run(
            small(model={"name": "mine"}, lora={"layers_to_transform": None}),
            tweets,
            tmp_path / "run",
            base_models_dir=base.parent,
        )
    assert not list((tmp_path / "run/artifacts").rglob("checkpoint-*"))


def test_sentences_of_other_libraries_lose_folders_and_further_lines(tmp_path: Path) -> None:
    error = OSError(f"No file in {tmp_path}/mine/ or /opt/models/bert/vocab.txt, see https://a.b/c/d\n\nmany\nlines")
    assert brief(error, tmp_path / "mine", "mine") == "No file in  or vocab.txt, see https://a.b/c/d"
    assert brief(KeyError(), tmp_path, "mine") == "KeyError"
    assert len(brief(ValueError("x" * 3000), tmp_path, "mine")) < 310
