"""What a run will take, told before it starts: a few of its own steps on this machine, and arithmetic.

`measure` prepares the run as `train` would and times some of its batches, from the longest to the shortest.
What it finds is the same for any number of epochs and evaluations and for any learning rate, so it is worth keeping;
`forecast` then tells time and memory of a configuration within a millisecond.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.config import RunConfig

if TYPE_CHECKING:
    from engine.training.run import Run

TRAIN_S, EVALUATE_S = 12.0, 4.0  # after so long no further length is tried
FEWEST = 3  # lengths: the longest, the shortest, one between them
LONG_S = 0.5  # a batch of more seconds is timed twice, others three times
ENGINE = 2  # count up when a step takes another time or memory than before: what was measured then is of no use
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
    """What was timed, in seconds and MiB. `warm_up_s` is what the first batches of all lengths take longer than others."""

    steps_per_epoch: int
    step_s: float
    warm_up_s: float
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
    """What changes the measurement, of a configuration and of this engine: runs that agree in it share one."""
    return config.model_dump(mode="json", exclude=NO_INFLUENCE) | {"engine": ENGINE}


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
    from engine.training.run import Run

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
        + measured.warm_up_s
        + evaluations * measured.evaluation_s
        + saves * measured.save_s
        + measured.end_s
    )
    return Forecast(steps, seconds, measured.peak_mb)


class _Measurement:
    def __init__(self, run: Run, told: Callable[[int, int], None]) -> None:
        self.run, self.told = run, told
        self.started = time.perf_counter()

    def all(self, prepare_s: float) -> Measured:
        loop, task = self.run.loop, self.run.task
        batches, evaluation = sorted(loop.schedule.epoch(1), key=task.padded), task.evaluation_batches()
        widths = [task.padded(rows) for rows in batches]
        steps = self._sample(batches, _last_of_each(widths), loop.take, TRAIN_S)
        evaluated = self._sample(evaluation, list(range(len(evaluation))), task.evaluate_batch, EVALUATE_S)
        evaluation_s = _mean(evaluated, len(evaluation)) * len(evaluation)
        return Measured(
            steps_per_epoch=len(batches),
            step_s=_mean(steps, len(batches)),
            warm_up_s=_warm_up(steps, len(set(widths))) + _warm_up(evaluated, len(evaluation)),
            evaluation_s=evaluation_s,
            prepare_s=prepare_s,
            save_s=_seconds(loop.save),
            end_s=_seconds(self._end) + evaluation_s * task.test_share,
            peak_mb=self.run.peak_memory_mb(),
            micro_batch=loop.state.micro_batch,
        )

    def _sample(
        self, batches: Sequence[np.ndarray], places: list[int], work: Callable[[np.ndarray], object], limit_s: float
    ) -> list[_Timed]:
        """Batches of as many lengths as there is time for: each length that is seen adds to what memory is held."""
        found, until = [], time.perf_counter() + limit_s
        for place in _spread(places):
            found.append(_timed(place, lambda rows=batches[place]: work(rows)))  # type: ignore[misc]
            self._told()
            if time.perf_counter() > until and len(found) >= FEWEST:
                break
        return sorted(found, key=lambda one: one.place)

    def _end(self) -> None:
        """All that follows the last evaluation, but what evaluates again."""
        self.run.save_final_model()
        self.run.task.baseline()

    def _told(self) -> None:
        usual = TRAIN_S + EVALUATE_S
        self.told(int(min(time.perf_counter() - self.started, usual)), int(usual))


@dataclass(frozen=True, slots=True)
class _Timed:
    place: int
    first_s: float
    seconds: float


def _timed(place: int, work: Callable[[], object]) -> _Timed:
    first = _seconds(work)
    steady = median(_seconds(work) for _ in range(2 if first > LONG_S else 3))
    return _Timed(place, max(first, steady), steady)


def _last_of_each(widths: list[int]) -> list[int]:
    """Where in sorted widths each one ends."""
    return [place for place, (here, after) in enumerate(pairwise([*widths, None])) if here != after]


def _spread(places: list[int]) -> Iterator[int]:
    """All of them: the last, which needs most, the first, the middle one, quarters: each beginning is evenly spread."""
    last, parts = len(places) - 1, 1
    seen: set[int] = set()
    while len(seen) < len(places):
        for part in range(parts, -1, -1):
            if (at := round(last * part / parts)) not in seen:
                seen.add(at)
                yield places[at]
        parts *= 2


def _warm_up(found: list[_Timed], shapes: int) -> float:
    return fmean(one.first_s - one.seconds for one in found) * shapes


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
