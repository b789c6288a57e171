"""Estimate the time and memory of a run before it starts, from a few of its own steps on this machine.

`measure_run` prepares the run as `train` would and times some of its batches, from the longest to the shortest. The
result holds for any number of epochs and evaluations and for any learning rate, so it is worth storing; `estimate_run`
then computes time and memory of a configuration within a millisecond.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.config import RunConfig
from engine.data.batches import total_steps
from engine.task_types import is_language_model

if TYPE_CHECKING:
    from engine.tasks.repeats import Repeats
    from engine.training.run import PreparedRun

TRAIN_SECONDS = 12.0  # after which no further length of training batches is timed
EVALUATE_SECONDS = 4.0  # the same for evaluation batches
LEAST_LENGTHS = 3  # that are timed in any case: the longest, the shortest and one between them
LONG_SECONDS = 0.5  # a batch that takes longer is timed twice, others three times
# Increase this when a step takes another time or memory than before: older measurements are then not used any more.
ENGINE = 4
NO_INFLUENCE: dict[str, Any] = {
    "experiment_name": True,
    "training": {
        "num_train_epochs",
        "max_steps",
        "learning_rate",
        "warmup_ratio",
        "lr_scheduler_type",
        "weight_decay",
        "label_smoothing_factor",
        "eval_strategy",
        "eval_steps",
        "save_strategy",
        "save_steps",
        "logging_steps",
        "metric_for_best_model",
        "early_stopping_patience",
        "seed",
    },
    "data": {"validation_rules"},
}


@dataclass(frozen=True, slots=True)
class RunMeasurement:
    """Measured times in seconds and memory in MiB.

    warm_up_s: the extra time of the first batch of each length. base_s: of what the base model computes at the end, by the file in the
    cache folder that keeps it for further runs.
    """

    steps_per_epoch: int
    step_s: float
    warm_up_s: float
    evaluation_s: float
    prepare_s: float
    save_s: float
    end_s: float
    peak_mb: float
    micro_batch: int
    base_s: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready mapping."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """The estimate of a whole run: optimizer steps, seconds until the model is saved, peak memory in MiB."""

    steps: int
    seconds: float
    memory_mb: float


def settings_with_influence(config: RunConfig) -> dict[str, Any]:
    """Return the settings that change the measurement, ready for JSON; runs that agree in them can share one.

    They include the version of the engine, so that measurements of a slower or faster one are not used any more.
    """
    return config.model_dump(mode="json", exclude=NO_INFLUENCE) | {"engine": ENGINE}


def measure_run(
    config: RunConfig,
    *,
    data_file: Path,
    base_models_dir: Path | None = None,
    cache_dir: Path | None = None,
    report_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RunMeasurement:
    """Time a few real steps of this run. Leaves nothing behind but the cache of tokens.

    report_progress: called with the parts done and the parts in all; it may raise to end the measurement.
    Raises what `train` would raise, such as OutOfMemoryError.
    """
    from engine.training.run import Run  # deferred: imports torch and PEFT, which `estimate_run` does not need

    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, data_file, Path(folder), base_models_dir, cache_dir=cache_dir)
        with run.translated_errors():
            if not is_language_model(
                config.task
            ):  # whose tokens are not kept, and whose model would be in memory twice
                run.prepare()  # fills the cache of tokens, which the real run will find filled too
                gc.collect()
            started = time.perf_counter()
            prepared = run.prepare()
            prepare_s = time.perf_counter() - started
            return _Measurement(prepared, report_progress).measure(prepare_s, run.results.final_model)


def estimate_run(config: RunConfig, measured: RunMeasurement, cache_dir: Path | None = None) -> RunEstimate:
    """Return time and memory of a configuration whose `settings_with_influence` are those of the measured one.

    cache_dir: of the run; what the base model has computed there for earlier runs is left out.
    A run that stops early takes less time. Whatever else computes on the machine is not part of the estimate.
    """
    training = config.training
    per_epoch = measured.steps_per_epoch
    steps = total_steps(training.num_train_epochs, training.max_steps, per_epoch)
    evaluations = _count_due(training.eval_strategy, training.eval_steps, steps, per_epoch)
    # Each evaluation is followed by a save.
    saves = max(evaluations, _count_due(training.save_strategy, training.save_steps, steps, per_epoch))
    kept = {name for name in measured.base_s if cache_dir and (cache_dir / name).is_file()}
    seconds = (
        measured.prepare_s
        + steps * measured.step_s
        + measured.warm_up_s
        + evaluations * measured.evaluation_s
        + saves * measured.save_s
        + measured.end_s
        + sum(seconds for name, seconds in measured.base_s.items() if name not in kept)
    )
    return RunEstimate(steps, seconds, measured.peak_mb)


@dataclass(frozen=True, slots=True)
class _TimedBatch:
    """The times of one batch, whose position is its index among all batches sorted by length."""

    position: int
    first_s: float
    steady_s: float


@dataclass(eq=False)
class _Measurement:
    """Times the parts of a prepared run, from which `estimate_run` adds up a whole one."""

    prepared: PreparedRun
    report_progress: Callable[[int, int], None]
    started: float = field(default_factory=time.perf_counter)

    def measure(self, prepare_s: float, final_model: Path) -> RunMeasurement:
        """Time training, evaluation and saving; the run cannot be used afterwards."""
        loop = self.prepared.loop
        task = self.prepared.task
        batches = sorted(loop.schedule.epoch(1), key=task.padded_length)
        lengths = [task.padded_length(rows) for rows in batches]
        # Batches of one padded length take the same time, so the last one of each length stands for the others.
        positions = [at for at, (length, following) in enumerate(pairwise([*lengths, None])) if length != following]
        steps = self._time_some(batches, positions, loop.train_step, TRAIN_SECONDS)

        eval_batches = task.evaluation_batches()
        positions = list(range(len(eval_batches)))
        evaluations = self._time_some(eval_batches, positions, task.evaluate_batch, EVALUATE_SECONDS)
        scores_s = _mean_seconds(evaluations, len(eval_batches)) * len(eval_batches)
        answers_s, answers = _timed(task.write_some_answers)

        warm_up_s = fmean(batch.first_s - batch.steady_s for batch in steps) * len(set(lengths))
        warm_up_s += fmean(batch.first_s - batch.steady_s for batch in evaluations) * len(eval_batches)
        save_s = _seconds(loop.save)
        general_s, general = _timed(task.check_forgetting)
        base_files = task.base_model_files()
        base_s = {
            "scores": scores_s,
            "answers": answers_s * answers.by_base_model,
            "general": general_s * general.by_base_model,
        }
        end_s = answers_s * answers.by_trained_model + general_s * general.by_trained_model
        end_s += sum(base_s[part] for part, path in base_files.items() if path is None)
        end_s += _seconds(lambda: self.prepared.save_final_model(final_model))  # takes the place of the trained weights
        if self.prepared.loop.config.system.baseline:
            with suppress(Exception):  # a run goes on without the baseline too
                end_s += _seconds(task.baseline)
        return RunMeasurement(
            steps_per_epoch=len(batches),
            step_s=_mean_seconds(steps, len(batches)),
            warm_up_s=warm_up_s,
            evaluation_s=scores_s + answers_s,
            prepare_s=prepare_s,
            save_s=save_s,
            end_s=end_s + scores_s * task.test_share,
            peak_mb=self.prepared.peak_memory_mb(),
            micro_batch=loop.state.micro_batch,
            base_s={path.name: base_s[part] for part, path in base_files.items() if path is not None},
        )

    def _time_some(
        self,
        batches: Sequence[np.ndarray],
        positions: list[int],
        process: Callable[[np.ndarray], object],
        limit_s: float,
    ) -> list[_TimedBatch]:
        """Time as many of the batches at `positions` as the limit allows, spread over all lengths.

        Many lengths also give a truer peak of memory, because the allocator holds some for each.
        """
        expected = TRAIN_SECONDS + EVALUATE_SECONDS
        deadline = time.perf_counter() + limit_s
        timed: list[_TimedBatch] = []
        for position in spread(positions):
            rows = batches[position]
            first_s = _seconds(lambda rows=rows: process(rows))  # type: ignore[misc]
            repeats = 2 if first_s > LONG_SECONDS else 3
            steady_s = median(_seconds(lambda rows=rows: process(rows)) for _ in range(repeats))  # type: ignore[misc]
            timed.append(_TimedBatch(position, max(first_s, steady_s), steady_s))
            self.report_progress(int(min(time.perf_counter() - self.started, expected)), int(expected))
            if time.perf_counter() > deadline and len(timed) >= LEAST_LENGTHS:
                break
        return sorted(timed, key=lambda batch: batch.position)


def spread(positions: list[int]) -> Iterator[int]:
    """Yield all positions in bisection order, so that any prefix is evenly spread: last, first, middle, quarters, …

    The last comes first because it needs the most memory.
    """
    last = len(positions) - 1
    parts = 1
    seen: set[int] = set()
    while len(seen) < len(positions):
        for part in range(parts, -1, -1):
            index = round(last * part / parts)
            if index not in seen:
                seen.add(index)
                yield positions[index]
        parts *= 2


def _seconds(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes, by the wall clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _timed(work: Callable[[], Repeats]) -> tuple[float, Repeats]:
    """Return the seconds of a part of a run, 0 if the run has no such part, and how often it follows at the end."""
    started = time.perf_counter()
    repeats = work()
    return time.perf_counter() - started if any(repeats) else 0.0, repeats


def _mean_seconds(timed: list[_TimedBatch], count: int) -> float:
    """Return the mean time over all `count` batches, interpolated between the ones that were timed."""
    positions = [batch.position for batch in timed]
    seconds = [batch.steady_s for batch in timed]
    return float(np.interp(np.arange(count), positions, seconds).mean())


def _count_due(strategy: str, every: int, steps: int, per_epoch: int) -> int:
    """Return how often something with this strategy is due within `steps`; it is always due after the last step."""
    period = {"epoch": per_epoch, "steps": every}.get(strategy)
    return math.ceil(steps / period) if period else 1
