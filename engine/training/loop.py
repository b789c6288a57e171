"""The loop: steps, evaluations and checkpoints as a generator of events. It knows no task's details and no listener."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.config import RunConfig
from engine.data.batches import Schedule
from engine.devices import Plan
from engine.errors import Interrupted, LossNotFinite, OutOfMemory
from engine.events import Checkpointed, Evaluated, Event, Notice, StageChanged, StepDone
from engine.out_of_memory import fitting, halving, is_out_of_memory, release
from engine.tasks import Task
from engine.training.checkpoint import Checkpoints, State
from engine.training.learning_rate import learning_rate

SCORES = ("accuracy", "macro_f1", "macro_precision", "macro_recall", "loss")
RECENT_STEPS = 50


class Loop:
    """One run's training from state.step to its end."""

    def __init__(
        self,
        config: RunConfig,
        plan: Plan,
        task: Task,
        model: nn.Module,
        schedule: Schedule,
        checkpoints: Checkpoints,
        should_save: Callable[[], bool] | None,
    ) -> None:
        self.config, self.plan, self.task, self.model, self.schedule = config, plan, task, model, schedule
        self.checkpoints = checkpoints
        self.should_save = should_save or (lambda: False)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(model, config, plan)
        self.state = State(micro_batch=min(config.training.per_device_train_batch_size, schedule.batch))
        self.metrics: dict[str, Any] = {}
        self.stopped_early = False
        self._stop = False  # asked of any process
        self._held = 0.0  # bytes that the largest micro-batch so far took, by the estimate
        self._notices: list[Notice] = []
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT_STEPS)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.schedule.total_steps

    @property
    def _expected_tokens(self) -> float:
        return self.total_steps * float(self.schedule.lengths.sum()) / self.schedule.steps_per_epoch

    def _told(self) -> Iterator[Notice]:
        """What has happened since the last call that a person should know."""
        while self._notices:
            yield self._notices.pop(0)

    def events(self) -> Generator[Event]:
        """Train to the end; yields an event per step, evaluation and checkpoint."""
        self.model.train()
        while self.state.step < self.total_steps and not self.stopped_early:
            epoch, start = divmod(self.state.step, self.schedule.steps_per_epoch)
            for rows in self.schedule.epoch(epoch)[start:]:
                done = self.take(rows)
                yield from self._told()
                yield done
                yield from self._after_step()
                if self.state.step >= self.total_steps or self.stopped_early:
                    break

    def evaluate(self) -> Generator[Event]:
        """Evaluate and remember the score."""
        yield StageChanged("evaluating")
        self.metrics = self.task.evaluate()
        scores = {name: self.metrics[name] for name in SCORES if name in self.metrics}
        self._remember(scores)
        yield Evaluated(self.state.step, self._epoch(), scores)

    def save(self) -> Checkpointed:
        """Write a checkpoint of this moment."""
        world, path = self.plan.world, self.checkpoints.path(self.state.step)
        if world.leads:
            self.checkpoints.save(self.state, self.model, self.optimizer)
        world.wait(self.plan.device)
        return Checkpointed(self.state.step, str(path), self.checkpoints.kept(self.state))

    def take(self, rows: np.ndarray) -> StepDone:
        """One optimiser step on these training rows."""
        started = time.perf_counter()
        rate = self._set_rate()
        loss = self._together(self._gradients(rows))
        norm = self._clip()
        self._refuse_not_finite(loss, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self._advance(rows, loss, norm, rate, time.perf_counter() - started)

    def _advance(self, rows: np.ndarray, loss: float, norm: float, rate: float, seconds: float) -> StepDone:
        state, tokens = self.state, int(self.task.lengths[rows].sum())
        state.step += 1
        state.loss_sum += loss
        state.tokens += tokens
        state.runtime_s += seconds
        state.unlogged.append(loss)
        self._recent.append((seconds, tokens))
        if state.step % self.config.training.logging_steps == 0 or state.step == self.total_steps:
            state.history.append(
                {
                    "step": state.step,
                    "epoch": self._epoch(),
                    "loss": fmean(state.unlogged),
                    "learning_rate": rate,
                    "grad_norm": norm,
                }
            )
            state.unlogged.clear()
        recent_seconds, recent_tokens = (sum(column) for column in zip(*self._recent, strict=True))
        return StepDone(
            step=state.step,
            total_steps=self.total_steps,
            epoch=self._epoch(),
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            tokens=tokens,
            tokens_per_second=recent_tokens / recent_seconds,
            eta_seconds=max(0.0, self._expected_tokens - state.tokens) * recent_seconds / recent_tokens,
        )

    def _after_step(self) -> Generator[Event]:
        state, last = self.state, self.state.step >= self.total_steps
        evaluated = self._due(self.config.training.eval_strategy, self.config.training.eval_steps) or last
        if evaluated:
            yield from self.evaluate()
        stopping = self._stop if self.plan.world.size > 1 else self.should_save()
        due = self._due(self.config.training.save_strategy, self.config.training.save_steps)
        if evaluated or due or stopping:
            yield self.save()
        if stopping and not last:
            raise Interrupted(
                f"The run was stopped at step {state.step} of {self.total_steps}. Its place is saved; resume it to go on.",
                step=state.step,
            )
        if evaluated and not last and not self.stopped_early:
            yield StageChanged("training")

    def _due(self, strategy: str, every: int) -> bool:
        period = {"epoch": self.schedule.steps_per_epoch, "steps": every}.get(strategy)
        return period is not None and self.state.step % period == 0

    def _gradients(self, rows: np.ndarray) -> float:
        """This process's part of the step's mean loss, gradients accumulated; smaller micro-batches until they fit."""
        world, weight = self.plan.world, self.task.weight(rows)
        rows = world.share(rows)
        self._foresee(rows)
        world.seed(self.config.training.seed, self.state.step)
        generators = _rng(self.plan.device)

        def smaller(size: int) -> None:
            self.optimizer.zero_grad(set_to_none=True)
            _restore_rng(self.plan.device, generators)
            self._held = 0.0
            self._shrink(size)

        try:
            return halving(lambda _: self._accumulate(rows, weight), self.state.micro_batch, self.plan.device, smaller)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise self._too_long(rows)

    def _together(self, loss: float) -> float:
        """The loss and the gradients of all processes' rows; what one was asked or lacks, all know."""
        world, size = self.plan.world, self.state.micro_batch
        if world.size == 1:
            return loss
        told = world.after_step(self.parameters, loss, size, self.should_save())
        self._stop = told.stop
        if told.micro_batch < size:
            self._shrink(told.micro_batch)
        return told.loss

    def _accumulate(self, rows: np.ndarray, weight: float) -> float:
        total = 0.0
        for start in range(0, len(rows), self.state.micro_batch):
            loss = self.task.loss(rows[start : start + self.state.micro_batch]) / weight
            loss.backward()
            total += loss.item()  # waits for the device; a step is long beside it
        return total

    def _foresee(self, rows: np.ndarray) -> None:
        """Smaller micro-batches before memory runs out, where the estimate says that it would."""
        if self.plan.device.type != "cpu" or not len(rows):
            return  # a GPU that runs out says so cleanly

        def bytes_of(size: int) -> float:
            return self.plan.world.size * self.task.step_bytes(min(size, len(rows)), int(self.task.lengths[rows].max()))

        size = fitting(self.state.micro_batch, bytes_of, self._held)
        if size < self.state.micro_batch:
            release(self.plan.device)  # may be enough, and keeps holes from growing where memory is scarce
            size = fitting(self.state.micro_batch, bytes_of, self._held)
        self._held = max(self._held, bytes_of(size))
        if size < self.state.micro_batch:
            self._shrink(size)

    def _shrink(self, size: int) -> None:
        self.state.micro_batch = size
        message = (
            f"A step needs more memory than is free, so it now takes its rows in micro-batches of {size}. "
            "The batch size and the result stay the same."
        )
        self._notices.append(Notice("warning", "out_of_memory", message))

    def _too_long(self, rows: np.ndarray) -> OutOfMemory:
        """Nothing fits, not even one row: find the longest row that does, to propose its length."""
        longest = int(self.task.lengths[rows].max())
        fits = next(filter(self._row_fits, _halves(longest)), None)
        advice = f"Set data.max_length to {fits}, or choose" if fits else "Choose"
        return OutOfMemory(
            f"One row of {longest} tokens does not fit into this machine's memory. "
            f"{'The last checkpoint is kept.' if self.state.step else 'Nothing was trained.'} "
            f"{advice} a smaller base model, or a smaller lora.r.",
            field="data.max_length" if fits else "model.name",
            fits=fits,
        )

    def _row_fits(self, length: int) -> bool:
        release(self.plan.device)
        rows = np.flatnonzero(self.task.lengths <= length)
        try:
            self._accumulate(rows[self.task.lengths[rows].argsort()[-1:]], 1.0)
        except (RuntimeError, MemoryError, ValueError):
            return False
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return True

    def _clip(self) -> float:
        limit = self.config.training.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True))

    def _refuse_not_finite(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        raise LossNotFinite(
            f"The loss was no longer a finite number at step {self.state.step + 1}. Earlier checkpoints are kept. "
            "Lower training.learning_rate and start again.",
            field="training.learning_rate",
            step=self.state.step + 1,
        )

    def _set_rate(self) -> float:
        rate = learning_rate(self.state.step, self.total_steps, self.config.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["ratio"]
        return rate

    def _remember(self, scores: dict[str, float]) -> None:
        state, name = self.state, self.config.training.metric_for_best_model
        sign = -1.0 if name == "loss" else 1.0
        best = max((sign * score["metric"] for score in state.scores), default=-math.inf)
        state.waited = 0 if sign * scores[name] > best else state.waited + 1
        state.scores.append({"step": state.step, "metric": scores[name], "loss": scores["loss"]})
        state.history.append(
            {"step": state.step, "epoch": self._epoch()} | {f"eval_{key}": value for key, value in scores.items()}
        )
        patience = self.config.training.early_stopping_patience
        if patience is not None and state.waited >= patience and state.step < self.total_steps:
            self.stopped_early = True

    def _epoch(self) -> float:
        return self.state.step / self.schedule.steps_per_epoch


def _optimizer(model: nn.Module, config: RunConfig, plan: Plan) -> torch.optim.Optimizer:
    """AdamW over the adapter in fp32; LoRA+ gives matrix B its own rate (arXiv 2402.12354)."""
    ratio = config.lora.loraplus_lr_ratio or 1.0
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    faster = [parameter for name, parameter in named if "lora_B" in name]
    others = [parameter for name, parameter in named if "lora_B" not in name]
    groups = [{"params": others, "ratio": 1.0}, {"params": faster, "ratio": ratio}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.training.learning_rate,
        weight_decay=config.training.weight_decay,
        fused=plan.device.type in {"cpu", "cuda"},
    )


def _halves(length: int) -> Iterator[int]:
    """Half, a quarter, … of a length in tokens, down to 8."""
    while (length := length // 2) >= 8:
        yield length


def _rng(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _restore_rng(device: torch.device, states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
