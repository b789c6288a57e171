"""Export a final model to files that need neither Lorasite nor PEFT. docs/engine.md shows how to use it.

Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from engine.export.comparison import ExportCheck

Format = Literal["safetensors", "onnx", "onnx-int8", "gguf-f16", "gguf-q8_0", "peft"]
Stage = Literal["writing", "comparing"]

__all__ = ["Format", "ReportProgress", "Stage", "export_model"]


class ReportProgress(Protocol):
    """Called with what is being done, and how many of its texts are done.

    Whatever a call raises ends the export, which then leaves nothing.
    """

    def __call__(self, stage: Stage, done: int = 0, total: int = 0) -> None: ...


def ignore_progress(stage: Stage, done: int = 0, total: int = 0) -> None:
    """Do nothing."""


def export_model(
    final_model: Path,
    target: Path,
    format: Format,
    *,
    base_models_dir: Path | None = None,
    texts: Sequence[str] | None = None,
    text_pairs: Sequence[str] | None = None,
    training_texts: Sequence[str] = (),
    report_progress: ReportProgress = ignore_progress,
) -> ExportCheck:
    """Write a final model to a new folder, load it again and compare its answers with those of serving.

    format: "safetensors" is the base model with the adapter merged, for transformers; "onnx" is the
        same as a graph, and "onnx-int8" that graph with its weights in 8 bits, whose answers are measured, not limited. Language
        models have safetensors, "gguf-f16" and "gguf-q8_0" for llama.cpp and Ollama, and "peft", the adapter as vLLM loads it.
    texts: those to compare on, with the second text of each in `text_pairs` if the model takes pairs; of a language model
        conversations or preferences as JSON. Random tokens of varied lengths without them.
    training_texts: of a language model, rows that fill up fewer than 100 texts; parts of both follow.

    The folder is there as a whole or not at all. What an export that was killed has left beside it is removed by the next
    one to the same folder, so two must not write to it at once.

    Raises ExportRefusedError before anything is computed, ExportFailedError if the model can't be written in this format,
    ExportDiffersError if the files answer otherwise than the format explains, ModelUnreadableError if the final model can't be loaded,
    DiskError.
    """
    from engine.export.writing import write_export  # deferred: imports torch

    return write_export(
        final_model, target, format, base_models_dir, texts, text_pairs, training_texts, report_progress
    )
