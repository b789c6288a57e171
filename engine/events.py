"""What a run tells its listener. The loop yields these and knows nothing of who listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Stage = Literal["preparing", "training", "evaluating", "saving", "done"]


@dataclass(frozen=True, slots=True)
class StageChanged:
    """The run has entered another stage."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data, model and device are ready; the next event is the first step."""

    total_steps: int
    train_rows: int
    eval_rows: int
    truncated_rows: int
    skipped_rows: int
    labels: list[str]
    device: str
    precision: str
    trainable_parameters: int
    total_parameters: int
    resumed_from_step: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimiser step. `tokens` are real ones, without padding; times are in seconds."""

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Metrics on the eval rows: accuracy, macro_f1, macro_precision, macro_recall, loss."""

    step: int
    epoch: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint is whole and on disk; `kept` maps best, last and fastest to their steps."""

    step: int
    path: str
    kept: dict[str, int]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know that does not stop the run."""

    level: Literal["info", "warning"]
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The final model is there and loads; `metrics` is the content of metrics.json."""

    metrics: dict[str, Any]


Event = StageChanged | Prepared | StepDone | Evaluated | Checkpointed | Notice | Finished
