"""Write a merged model as ONNX and compute with it. Imports the packages of requirements-export.txt."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from engine.errors import ExportFailedError
from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ONNX_FILE = "model.onnx"
EXAMPLE = (2, 7)  # rows and tokens; torch.export takes sizes of 0 and 1 for constants
LARGEST_FILE = 1_900_000_000  # bytes of weights; protobuf ends at 2 GiB, and larger ones get a file of their own


class LogitsOnly(nn.Module):
    """A model as ONNX has it: tensors in their order, and logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the logits: (rows, outputs) or (rows, length, outputs)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits


def write_onnx(model: PreTrainedModel, folder: Path, token_types: bool) -> None:
    """Write model.onnx for batches of any number of rows and any length. Raises ExportFailedError.

    token_types: whether the model takes the types of tokens too.
    """
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])]
    model.config.use_cache = False  # a decoder would return its keys and values too
    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    # torch logs which operations of torchvision it leaves out.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                LogitsOnly(model).eval(),
                tuple(torch.ones(EXAMPLE, dtype=torch.long) for _name in names),
                dynamo=True,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(any_size,) * len(names),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise ExportFailedError(
            Sentence(
                gettext_noop(
                    "The architecture {model_type} can't be written as ONNX ({reason}). Export it as safetensors."
                ),
                model_type=model.config.model_type,
                reason=reason[:200],
            )
        ) from error
    assert program is not None
    program.save(folder / ONNX_FILE, external_data=size > LARGEST_FILE)


def quantize_onnx(folder: Path) -> None:
    """Replace model.onnx by one with weights in int8; activations are rounded as they come, each batch by its own range.

    Weights get 7 bits: sums of two products of 8 bits overflow on CPUs without VNNI.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # deferred: takes a second

    logging.getLogger().addFilter(_is_no_advice)
    precise = folder / f"fp32-{ONNX_FILE}"
    (folder / ONNX_FILE).rename(precise)
    external = (folder / f"{ONNX_FILE}.data").is_file()
    try:
        quantize_dynamic(
            precise,
            folder / ONNX_FILE,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=external,
        )
    finally:
        logging.getLogger().removeFilter(_is_no_advice)
    precise.unlink()


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Return whether a log record is not the advice to preprocess the graph, which torch's exporter has done."""
    return "pre-processing" not in record.getMessage()


class OnnxForward:
    """The forward pass of an ONNX file on the CPU."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the logits of a padded batch."""
        feeds: dict[str, np.ndarray] = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        if token_type_ids is not None:
            feeds["token_type_ids"] = token_type_ids.numpy()
        return torch.from_numpy(self.session.run(["logits"], feeds)[0])
