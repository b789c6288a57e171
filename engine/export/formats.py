"""Which formats a model of each task type can be exported to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import ExportRefusedError
from engine.sentences import Sentence, gettext_noop
from engine.task_types import TaskType, is_language_model

if TYPE_CHECKING:
    from engine.export import Format

FORMATS: tuple[Format, ...] = ("safetensors", "onnx", "onnx-int8")
LANGUAGE_MODEL_FORMATS: tuple[Format, ...] = ("safetensors", "gguf-f16", "gguf-q8_0", "peft")


def formats_of(task: TaskType) -> tuple[Format, ...]:
    """Return the formats of a task type."""
    return LANGUAGE_MODEL_FORMATS if is_language_model(task) else FORMATS


def require_format(task: TaskType, format: Format) -> None:
    """Raise ExportRefusedError unless a model of the task type can be exported to a format."""
    if format not in formats_of(task):
        raise ExportRefusedError(
            Sentence(
                gettext_noop("A model of the task type {task} can't be exported to {format}. Choose one of {formats}."),
                task=task,
                format=format,
                formats=", ".join(formats_of(task)),
            )
        )
