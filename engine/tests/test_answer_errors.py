"""Whatever goes wrong while a text is answered is told in words, and never answered with numbers that are none."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.serve.errors import PredictionFailedError
from engine.serve.merged_model import MergedModel
from engine.serve.predictor import Predictor
from engine.serve.shared_base import SharedBaseModel
from engine.serve.tokenizer import ServedTokenizer
from testing.adapters import make_adapter
from testing.predictions import predict_labels


@pytest.fixture
def base(bases: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bases / "tiny", tmp_path / "bases" / "mine")


def set_embedding_to_nan(base: Path, token: int) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][token] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"use_dora": True}], ids=["shared", "merged"])
def test_answer_that_is_not_a_number_is_an_error_that_names_the_text(base, tmp_path, lora):
    set_embedding_to_nan(base, token=103)  # [MASK]
    model = make_adapter(tmp_path / "model", ["bad", "good"], seed=1, base=base, **lora)
    predictor = Predictor(base.parent)
    with pytest.raises(PredictionFailedError, match="output for text 2 is not finite"):
        predictor.predict(model, ["a fine day", "a fine [MASK]"])
    (answer,) = predict_labels(predictor, model, ["a fine day"])
    assert sum(answer.probabilities) == pytest.approx(1)


def fail(*arguments: object) -> None:
    raise IndexError("index out of range in self")


def run_out_of_memory(*arguments: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


class PanicError(BaseException):
    """What Rust code raises when it panics."""


PanicError.__module__ = "pyo3_runtime"


def panic(*arguments: object) -> None:
    raise PanicError("called unwrap on None")


@pytest.mark.medium
@pytest.mark.parametrize(
    ("owner", "name", "fault", "reason"),
    [
        (SharedBaseModel, "outputs", fail, "IndexError"),
        (MergedModel, "outputs", fail, "IndexError"),
        (SharedBaseModel, "outputs", run_out_of_memory, "not enough memory .* shorter texts"),
        (ServedTokenizer, "encode", fail, "IndexError"),
        (ServedTokenizer, "encode", panic, "PanicError"),
    ],
)
def test_any_fault_while_answering_is_told_in_words(base, tmp_path, monkeypatch, owner, name, fault, reason):
    lora: dict[str, Any] = {"use_dora": True} if owner is MergedModel else {}
    model = make_adapter(tmp_path / "model", ["bad", "good"], seed=1, base=base, **lora)
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(PredictionFailedError, match=reason):
        Predictor(base.parent).predict(model, ["a fine day"])
