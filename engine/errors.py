"""Everything that can stop a run, each with a sentence for a person and a code for a program.

EngineError
├── ConfigError            config_invalid
├── BaseModelUnavailable   base_model_unavailable
├── BaseModelUnsafe        base_model_unsafe
├── DataUnreadable         data_unreadable
├── ColumnMissing          column_missing
├── OneLabel               one_label
├── TooFewRows             too_few_rows
├── OverLong               over_long
├── OutOfMemory            out_of_memory
├── CheckpointDamaged      checkpoint_damaged
├── DiskError
│   ├── DiskFull           disk_full
│   ├── DiskRefused        disk_refused
│   └── FolderGone         folder_gone
├── LossNotFinite          loss_not_finite
└── Interrupted            interrupted
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class EngineError(Exception):
    """What happened, what was kept and what to do; `field` names the setting at fault, where there is one."""

    code = "engine_error"

    def __init__(self, message: str, *, field: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.field = field
        self.facts: dict[str, Any] = facts


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong value of a configuration; `field` is dotted, as in lora.r."""

    field: str
    message: str
    code: str


class ConfigError(EngineError):
    """The configuration is wrong; `problems` holds all of them, not only the first."""

    code = "config_invalid"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(
            " ".join(problem.message for problem in problems),
            field=problems[0].field if problems else None,
            problems=[(problem.field, problem.message, problem.code) for problem in problems],
        )
        self.problems = problems


class BaseModelUnavailable(EngineError):
    """The base model is neither on this machine nor reachable."""

    code = "base_model_unavailable"


class BaseModelUnsafe(EngineError):
    """The base model asks for code of its own or has pickled weights only."""

    code = "base_model_unsafe"


class DataUnreadable(EngineError):
    """The data file can't be read as what its name says."""

    code = "data_unreadable"


class ColumnMissing(EngineError):
    """The data have no column of the configured name."""

    code = "column_missing"


class OneLabel(EngineError):
    """All rows carry the same label, so there is nothing to tell apart."""

    code = "one_label"


class TooFewRows(EngineError):
    """Too few rows are left for training or for evaluation."""

    code = "too_few_rows"


class OverLong(EngineError):
    """Rows exceed max_length and the configuration says to refuse them."""

    code = "over_long"


class OutOfMemory(EngineError):
    """Not even a micro-batch of one row fits into memory."""

    code = "out_of_memory"


class CheckpointDamaged(EngineError):
    """A saved file does not hold what was written, or does not load."""

    code = "checkpoint_damaged"


class DiskError(EngineError):
    """A file could not be written or read; what was saved before is kept, unless its folder is gone."""


class DiskFull(DiskError):
    """There is no room for a file."""

    code = "disk_full"


class DiskRefused(DiskError):
    """The disk is read-only or broken, or the folder belongs to somebody else."""

    code = "disk_refused"


class FolderGone(DiskError):
    """Somebody removed the run's folder, or a part of it, while the run went on."""

    code = "folder_gone"


class LossNotFinite(EngineError):
    """The loss became infinite or not a number."""

    code = "loss_not_finite"


class Interrupted(EngineError):
    """The run was asked to stop and has saved its place."""

    code = "interrupted"
