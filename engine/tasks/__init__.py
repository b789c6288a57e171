"""Task types: what a model can learn. Each is a module of this package with a class `Task` that fulfils this contract."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from engine.config import RunConfig
from engine.data.labelled_rows import Rows
from engine.devices import DevicePlan
from engine.events import Notice
from engine.tasks.repeats import Repeats
from engine.training.saved_model import SavedModelCheck


class Task(Protocol):
    """The data and the model of one run. The training loop knows only this contract, nothing of texts or labels.

    `rows` are always indexes into the training rows or, for evaluation batches, into the evaluation rows: (rows,) int64.
    """

    model: nn.Module  # base model with adapter, on the device
    lengths: np.ndarray  # (training rows,) tokens of each
    notices: list[Notice]  # what was found while data and model were prepared
    facts: dict[str, Any]  # JSON-ready facts about data and labels, for metrics.json and the saved model
    plan: DevicePlan  # how the model really computes, which may be less than what was planned
    test_share: float  # test rows per evaluation row
    data_hash: str  # of all rows, with their labels and splits

    def matches_data(self, data_hash: str) -> bool:
        """Return whether a checkpoint with this `data_hash` was trained on these rows.

        It is empty in checkpoints of releases that did not record it.
        """
        ...

    def hash_base_model(self) -> str:
        """Return the hash of the base model's weights on disk. It is computed once, at about a second per GB."""
        ...

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return what the summed loss of these training rows is divided by to get their mean.

        It is that of a whole step: micro-batches and processes divide their parts of the loss by it, so that the
        gradients do not depend on how a step is divided.
        """
        ...

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Return the summed loss of these training rows, a scalar with a gradient.

        May raise what torch raises when memory runs out; the caller then tries again with fewer rows.
        """
        ...

    def backward(self, rows: np.ndarray, weight: float) -> torch.Tensor:
        """Add the gradients of the rows' loss divided by `weight` to the parameters; return that loss: ().

        The caller reads the number only when it has to, because that waits for a GPU. May raise as `loss` does.
        """
        ...

    def estimate_step_bytes(self, rows: int, length: int) -> float:
        """Return the estimated memory in bytes of a micro-batch of `rows` rows, of which the longest has `length` tokens.

        It should be right within a quarter: engine.out_of_memory adds that margin.
        """
        ...

    def recompute_activations(self) -> bool:
        """Compute the activations of each layer again in the backward pass from now on, instead of keeping them.

        Return whether that saves memory: False if it is done already, or if the task type keeps them anyway.
        """
        ...

    def padded_length(self, rows: np.ndarray) -> int:
        """Return the number of tokens that each of these training rows is padded to.

        Batches of one padded length take the same time, so an estimate times one of them.
        """
        ...

    def evaluation_batches(self) -> list[np.ndarray]:
        """Return the evaluation rows of each batch of an evaluation, longest first.

        Used by estimates, which time some of them with `evaluate_batch`.
        """
        ...

    def evaluate_batch(self, rows: np.ndarray) -> object:
        """Do what `evaluate` does with one batch, so that an estimate can time it; the result is ignored."""
        ...

    def write_some_answers(self) -> Repeats:
        """Write as many answers to held-out prompts as an evaluation during training does, so that an estimate can time it.

        Return how many times as many follow at the end of a run.
        """
        ...

    def check_forgetting(self) -> Repeats:
        """Compute the loss on ordinary sentences once, so that an estimate can time it; return how often a run does."""
        ...

    def base_model_files(self) -> dict[str, Path | None]:
        """Return where scores, answers and loss on ordinary sentences ("scores", "answers", "general") of the base model are kept.

        Only what a run computes is among them; a path is None where nothing is kept.
        """
        ...

    def shown_answers(self) -> list[dict[str, str]]:
        """Return the first answers of the last `evaluate`: {prompt, expected, written}; none for a task type that writes none."""
        ...

    def baseline(self) -> dict[str, float]:
        """Return the scores of models that have to be trained for it, by name, such as linear_accuracy.

        They say what the run's own scores are worth, beside those of `summary` that cost nothing. Called by the main
        process once the final model is saved, if system.baseline asks for it. Whatever it raises does not fail the run.
        """
        ...

    def evaluate(self, is_last: bool = True) -> dict[str, Any]:
        """Return the metrics on the evaluation rows: `loss`, `accuracy` and the like, and more for metrics.json.

        is_last: whether the run ends with it; those before may compute less of what takes long.
        `loss` and the configured training.metric_for_best_model have to be among them. All processes of a run call this
        together and get the same metrics. Raises EvaluationNotFiniteError if the model's output is infinite or NaN.
        """
        ...

    def summary(self) -> dict[str, Any]:
        """Return what metrics.json holds beside the last evaluation's metrics: labels, baseline, worst rows.

        Called once, after the last `evaluate`, by all processes of a run together.
        """
        ...

    def wrong_rows(self) -> list[dict[str, Any]]:
        """Return the evaluation rows that were taken for another label, with both: {text, label, predicted, probability}.

        Called after `summary`.
        """
        ...

    def save_extras(self, folder: Path) -> None:
        """Add to the final model in `folder` what is needed to use it, such as tokenizer and label names.

        The adapter is there already. Raises DiskError.
        """
        ...

    def verify(self, folder: Path) -> SavedModelCheck:
        """Load the final model from `folder` and compare it with the last `evaluate`; the trained one is unusable afterwards.

        Raises CheckpointDamagedError or SavedModelDiffersError unless it answers a few texts as they were evaluated.
        """
        ...


def create(
    config: RunConfig,
    plan: DevicePlan,
    base: Path,
    data_file: Path | Rows | Callable[[], Rows],
    cache_dir: Path | None,
    seed: int,
) -> Task:
    """Return the configured task with its data tokenised and its model loaded from the folder `base`.

    cache_dir: where token ids are kept for the next run. seed: of the sample of rows and of the adapter.

    Raises the errors of its data, ConfigError and BaseModelUnavailableError.
    """
    # Only the module of the configured task type is imported.
    return import_module(f"{__name__}.{config.task}").Task(config, plan, base, data_file, cache_dir, seed)
