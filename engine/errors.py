"""Every error that can end a run.

Each has a message for a person (what happened, what was kept, what to do next), a `code` for a program and, where one
setting is at fault, its dotted `field`. Codes are part of the API: they never change, class names may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.sentences import join_sentences


class EngineError(Exception):
    """Base of all errors of the engine; `facts` are further details, ready for JSON."""

    code = "engine_error"

    def __init__(self, message: str, *, field: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message  # a `Sentence` wherever it can be said in another language
        self.field = field
        self.facts: dict[str, Any] = facts


@dataclass(frozen=True, slots=True)
class Problem:
    """One invalid value of a configuration; `field` is dotted, as in lora.r."""

    field: str
    message: str
    code: str


class ConfigError(EngineError):
    """The configuration is invalid; `problems` lists every problem, not only the first."""

    code = "config_invalid"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(
            join_sentences(problem.message for problem in problems),
            field=problems[0].field if problems else None,
            problems=[(problem.field, problem.message, problem.code) for problem in problems],
        )
        self.problems = problems


class DeviceUnavailableError(EngineError):
    """This machine does not have the requested device."""

    code = "device_unavailable"


class BaseModelUnavailableError(EngineError):
    """The base model is neither on this machine nor reachable on the hub, or cannot be loaded."""

    code = "base_model_unavailable"


class BaseModelUnsafeError(EngineError):
    """The base model needs to run its own code, or has pickled weights only."""

    code = "base_model_unsafe"


class DataUnreadableError(EngineError):
    """The data file cannot be read in the format that its name suggests."""

    code = "data_unreadable"


class ColumnMissingError(EngineError):
    """The data have no column with the configured name."""

    code = "column_missing"


class SingleLabelError(EngineError):
    """All rows have the same label, so there is nothing to learn."""

    code = "one_label"


class TooFewRowsError(EngineError):
    """Too few rows are left for training or for evaluation."""

    code = "too_few_rows"


class TextsTooLongError(EngineError):
    """Some texts exceed data.max_length, and data.truncation is `refuse`."""

    code = "over_long"


class ChatTemplateError(EngineError):
    """The base model's chat template does not say where an answer begins and ends, so nothing could be learned right."""

    code = "chat_template"


class OutOfMemoryError(EngineError):
    """The model, or a micro-batch of a single row, does not fit into memory."""

    code = "out_of_memory"


class CheckpointDamagedError(EngineError):
    """A saved file has changed since it was written, or cannot be loaded."""

    code = "checkpoint_damaged"


class ExportRefusedError(EngineError):
    """What was asked for can't be exported: the target is taken, a package is missing, or there are no texts to compare."""

    code = "export_refused"


class ExportFailedError(EngineError):
    """The model can't be written in this format."""

    code = "export_failed"


class ExportDiffersError(EngineError):
    """The exported files do not answer as the model does."""

    code = "export_differs"


class DiskError(EngineError):
    """A file could not be written or read; what was saved before is kept, unless its folder is gone."""


class DiskFullError(DiskError):
    """There is no room for a file."""

    code = "disk_full"


class DiskRefusedError(DiskError):
    """The disk is read-only or broken, or the folder belongs to somebody else."""

    code = "disk_refused"


class FolderGoneError(DiskError):
    """Somebody removed the run's folder, or a part of it, while the run went on."""

    code = "folder_gone"


class SavedModelDiffersError(EngineError):
    """The final model is saved as it is in memory, but does not answer texts as its last evaluation did."""

    code = "saved_model_differs"


class LossNotFiniteError(EngineError):
    """The loss or the gradient became infinite or NaN."""

    code = "loss_not_finite"


class EvaluationNotFiniteError(EngineError):
    """The model's output is infinite or NaN for some evaluation or test rows."""

    code = "evaluation_not_finite"


class RunInterruptedError(EngineError):
    """The run was asked to stop and has saved a checkpoint to resume from."""

    code = "interrupted"


class ProcessLostError(EngineError):
    """Another process of this distributed run has ended or cannot be reached."""

    code = "process_lost"


class ProcessesDifferError(EngineError):
    """The processes of a distributed run would not train the same thing."""

    code = "processes_differ"
