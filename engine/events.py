"""The events that `train` yields, in the order in which a run goes through them.

Every event is an immutable value. The engine does not know who consumes them: the command line draws a progress bar,
the platform writes them to its database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

LONGEST_SHOWN = 600  # characters of a text in Evaluated.answers
Stage = Literal["preparing", "training", "evaluating", "saving", "done"]


@dataclass(frozen=True, slots=True)
class StageChanged:
    """The run has entered another stage."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data, model and device are ready; training starts next."""

    total_steps: int
    train_rows: int
    eval_rows: int
    truncated_rows: int
    skipped_rows: int
    skipped_by_reason: dict[str, int]  # by the keys of engine.data.labelled_rows.SKIP_REASONS
    labels: list[str]
    device: str
    precision: str
    trainable_parameters: int
    total_parameters: int
    resumed_from_step: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step is done. `tokens` excludes padding; `eta_seconds` is the estimated time left for training.

    mean_loss: of the steps since the last point of the loss curve; None at steps that have no point. total_tokens,
    runtime_s: of all training steps so far, without evaluations.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    eta_seconds: float
    mean_loss: float | None = None
    total_tokens: int = 0
    runtime_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The model was evaluated; `metrics` has accuracy, macro_f1, macro_precision, macro_recall and loss.

    total_tokens, runtime_s: of all training steps so far. answers: what a language model wrote to the first held-out prompts,
    {prompt, expected, written}.
    """

    step: int
    epoch: float
    metrics: dict[str, float]
    total_tokens: int = 0
    runtime_s: float = 0.0
    answers: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A complete checkpoint is on disk; `kept` maps best, last and fastest to the steps of their checkpoints."""

    step: int
    path: str
    kept: dict[str, int]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person should know, but that does not stop the run."""

    level: Literal["info", "warning"]
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The final model is saved and was loaded again as a check; `metrics` is the content of metrics.json."""

    metrics: dict[str, Any]


Event = StageChanged | Prepared | StepDone | Evaluated | Checkpointed | Notice | Finished
