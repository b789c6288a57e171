"""A base model that was replaced under its name is noticed when a model over it is served."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.models.weights_hash import hash_base_weights
from engine.serve.errors import ModelUnreadableError
from engine.serve.predictor import Predictor
from testing.adapters import make_adapter


@pytest.fixture
def base(bases: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bases / "tiny", tmp_path / "bases" / "mine")


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    """A final model that was trained on `base`."""
    folder = make_adapter(tmp_path / "model", ["bad", "good"], seed=1, base=base)
    info = json.loads((folder / "lorasite.json").read_text())
    (folder / "lorasite.json").write_text(json.dumps(info | {"base_model_hash": hash_base_weights(base, "mine")}))
    return folder


def change_one_value(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["bert.encoder.layer.1.output.dense.bias"][0] += 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.medium
def test_model_over_other_base_weights_is_refused_with_what_to_do(base, model):
    Predictor(base.parent).predict(model, ["a fine day"])
    change_one_value(base)
    with pytest.raises(
        ModelUnreadableError, match=r"other weights of the base model mine .*put the former weights back"
    ):
        Predictor(base.parent).predict(model, ["a fine day"])


@pytest.mark.medium
def test_model_of_a_release_without_the_hash_is_served(base, model):
    info = json.loads((model / "lorasite.json").read_text())
    del info["base_model_hash"]
    (model / "lorasite.json").write_text(json.dumps(info))
    change_one_value(base)
    assert Predictor(base.parent).predict(model, ["a fine day"]).predictions


def test_hash_is_of_the_weights_that_are_loaded_and_of_nothing_else(base):
    before = hash_base_weights(base, "mine")
    (base / "README.md").write_text("It is mine.")
    save_file({"a": torch.zeros(1)}, base / "model.fp16.safetensors")
    assert hash_base_weights(base, "mine") == before
    change_one_value(base)
    assert hash_base_weights(base, "mine") != before


def test_hash_of_a_model_in_shards_covers_each_shard(base):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(base).save_pretrained(base / "parts", max_shard_size="100KB")
    parts = sorted((base / "parts").glob("*.safetensors"))
    before = hash_base_weights(base / "parts", "mine")
    assert len(parts) > 1
    for path in parts:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert hash_base_weights(base / "parts", "mine") != before
        path.write_bytes(content)
