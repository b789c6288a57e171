"""What a run will take, told before it starts: a few of its own steps on this machine, and arithmetic.

`measure` prepares the run as `train` would and times some of its batches: the shortest, one of usual length, the longest.
What it finds is the same for any number of epochs and evaluations and for any learning rate, so it is worth keeping;
`forecast` then tells time and memory of a configuration within a millisecond.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from training.engine.config import RunConfig

if TYPE_CHECKING:
    from training.engine.run import Run

SAMPLES = 3  # batches, from the shortest to the longest
REPEATS, ENOUGH_S = 4, 1.0  # of one batch, once it is warm
NO_INFLUENCE: dict[str, Any] = {
    "experiment_name": True,
    "training": {
        "num_train_epochs", "max_steps", "learning_rate", "warmup_ratio", "lr_scheduler_type", "weight_decay",
        "label_smoothing_factor", "eval_strategy", "eval_steps", "save_strategy", "save_steps", "logging_steps",
        "metric_for_best_model", "early_stopping_patience", "seed",
    },
    "data": {"validation_rules"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """What was timed, in seconds and MiB. `new_shape_s` is what the first batch of a length takes longer than its next."""

    steps_per_epoch: int
    step_s: float
    new_shape_s: float
    shapes: int
    evaluation_s: float
    prepare_s: float
    save_s: float
    end_s: float
    peak_mb: float
    micro_batch: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run from its start to the saved model: optimiser steps, seconds, highest memory in MiB."""

    steps: int
    seconds: float
    memory_mb: float


def influences(config: RunConfig) -> dict[str, Any]:
    """What of a configuration changes the measurement: configurations that agree in it share one."""
    return config.model_dump(mode="json", exclude=NO_INFLUENCE)


def measure(
    config: RunConfig,
    *,
    data_file: Path,
    base_models_dir: Path | None = None,
    cache_dir: Path | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """A few real steps of this run. Raises what `train` would raise, OutOfMemory among it; leaves nothing behind.

    told: hears how many parts of how many are done, and may raise to end it.
    """
    from training.engine.run import Run

    def prepared(folder: str) -> Run:
        run = Run(config, data_file, Path(folder), base_models_dir, cache_dir=cache_dir)
        with run.explained():
            for _event in run.prepare():
                pass
        return run

    with tempfile.TemporaryDirectory() as folder:
        prepared(folder)  # fills the cache of tokens, which the run itself will find
        gc.collect()
        started = time.perf_counter()
        run = prepared(folder)
        with run.explained():
            return _Measurement(run, told).all(time.perf_counter() - started)


def forecast(config: RunConfig, measured: Measured) -> Forecast:
    """Time and memory of a configuration that shares its `influences` with the measured one."""
    training, per_epoch = config.training, measured.steps_per_epoch
    steps = training.max_steps or max(1, round(training.num_train_epochs * per_epoch))
    evaluations = _times(training.eval_strategy, training.eval_steps, steps, per_epoch)
    saves = max(evaluations, _times(training.save_strategy, training.save_steps, steps, per_epoch))
    seconds = (
        measured.prepare_s
        + steps * measured.step_s
        + min(steps, measured.shapes) * measured.new_shape_s
        + evaluations * measured.evaluation_s
        + saves * measured.save_s
        + measured.end_s
    )
    return Forecast(steps, seconds, measured.peak_mb)


class _Measurement:
    def __init__(self, run: Run, told: Callable[[int, int], None]) -> None:
        self.run, self.told = run, told
        self.batches = sorted(run.loop.schedule.epoch(1), key=run.task.padded)
        self.evaluation_batches = run.task.evaluation_batches()
        self.done, self.total = 0, len(_places(self.batches)) + len(_places(self.evaluation_batches)) + 2

    def all(self, prepare_s: float) -> Measured:
        loop, task = self.run.loop, self.run.task
        train = self._sample(self.batches, loop.take)
        evaluation = self._sample(self.evaluation_batches, task.evaluate_batch)
        evaluation_s = _mean(evaluation, len(self.evaluation_batches)) * len(self.evaluation_batches)
        save_s = _seconds(loop.save)
        self._told()
        return Measured(
            steps_per_epoch=len(self.batches),
            step_s=_mean(train, len(self.batches)),
            new_shape_s=fmean(found.first_s - found.seconds for found in train),
            shapes=len({task.padded(rows) for rows in self.batches}),
            evaluation_s=evaluation_s,
            prepare_s=prepare_s,
            save_s=save_s,
            end_s=_seconds(self._end) + evaluation_s * task.test_share,
            peak_mb=self.run.peak_memory_mb(),
            micro_batch=loop.state.micro_batch,
        )

    def _sample(self, batches: Sequence[np.ndarray], work: Callable[[np.ndarray], object]) -> list[_Timed]:
        """Some of the batches, evenly spread; the last one first, because it needs the most memory."""
        found = []
        for place in reversed(_places(batches)):
            found.append(_timed(place, lambda rows=batches[place]: work(rows)))  # type: ignore[misc]
            self._told()
        return found[::-1]

    def _end(self) -> None:
        """All that follows the last evaluation, but what evaluates again."""
        self.run.save_final_model()
        self.run.task.baseline()
        self._told()

    def _told(self) -> None:
        self.done += 1
        self.told(self.done, self.total)


def _places(batches: Sequence[np.ndarray]) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, len(batches) - 1, SAMPLES)})


@dataclass(frozen=True, slots=True)
class _Timed:
    place: int
    first_s: float
    seconds: float


def _timed(place: int, work: Callable[[], object]) -> _Timed:
    first = _seconds(work)
    rounds = [_seconds(work)]
    while len(rounds) < REPEATS and sum(rounds) < ENOUGH_S:
        rounds.append(_seconds(work))
    steady = median(rounds)
    return _Timed(place, max(first, steady), steady)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _mean(found: list[_Timed], count: int) -> float:
    """Over all batches, from the ones that were timed."""
    places, seconds = [one.place for one in found], [one.seconds for one in found]
    return float(np.interp(np.arange(count), places, seconds).mean())


def _times(strategy: str, every: int, steps: int, per_epoch: int) -> int:
    """How often within `steps` something is due; the last step is always followed by one."""
    period = {"epoch": per_epoch, "steps": every}.get(strategy)
    return math.ceil(steps / period) if period else 1
