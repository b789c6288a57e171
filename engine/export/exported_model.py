"""Load exported files as serving computes with them, without the base model and without PEFT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.models.forward import Forward, plain_forward
from engine.models.loading import load_classifier_to_serve
from engine.models.text_encoding import load_config
from engine.serve.merged_model import PaddedModel
from engine.serve.model_files import ModelInfo, read_info
from engine.serve.predictor import LoadedModel
from engine.serve.tokenizer import ServedTokenizer

if TYPE_CHECKING:
    from engine.export import Format


def load_exported(folder: Path, format: Format) -> LoadedModel:
    """Return the model in an exported folder, on the CPU."""
    info = read_info(folder)
    tokenizer = ServedTokenizer(folder)
    config = load_config(folder, "the exported model")
    forward = load_forward(folder, format, info)
    model = PaddedModel(forward, config, tokenizer.padding_id, torch.device("cpu"))
    max_length = min(info.max_length, model.longest_text or info.max_length)
    return LoadedModel(replace(info, max_length=max_length), tokenizer, model, adapter=None)


def load_forward(folder: Path, format: Format, info: ModelInfo) -> Forward:
    """Return the forward pass of the exported weights."""
    if format != "safetensors":
        from engine.export.onnx_files import ONNX_FILE, OnnxForward  # deferred: may not be installed

        return OnnxForward(folder / ONNX_FILE)
    model, _missing = load_classifier_to_serve(folder, head=info.head)
    return plain_forward(model.eval(), info.max_length)
