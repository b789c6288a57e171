"""The training loop: steps, evaluations and checkpoints, as a generator of events."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.config import RunConfig
from engine.data.batches import BatchSchedule
from engine.devices import DevicePlan
from engine.errors import EvaluationNotFiniteError, LossNotFiniteError, RunInterruptedError
from engine.events import Checkpointed, Evaluated, Event, StageChanged, StepDone
from engine.sentences import Sentence, gettext_noop
from engine.task_types import LOWER_IS_BETTER, METRICS
from engine.tasks import Task
from engine.training.checkpoint import Checkpoints, State
from engine.training.learning_rate import learning_rate
from engine.training.micro_batches import MicroBatches

RECENT_STEPS = 50  # of which the speed and the remaining time are averages
MOST_EVALUATIONS = 12  # that keep their answers in the history, because each list of runs reads metrics.json


class Loop:
    """The training of one run, from state.step to its end."""

    def __init__(
        self,
        config: RunConfig,
        plan: DevicePlan,
        task: Task,
        schedule: BatchSchedule,
        checkpoints: Checkpoints,
        should_save: Callable[[], bool] | None,
    ) -> None:
        self.config = config
        self.plan = plan
        self.task = task
        self.model = task.model
        self.schedule = schedule
        self.checkpoints = checkpoints
        self.should_save = should_save or (lambda: False)
        self.parameters = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        self.optimizer = create_optimizer(task.model, config, plan)
        size = min(config.training.per_device_train_batch_size, schedule.batch)
        self.micro_batches = MicroBatches(task, plan, self.parameters, size, config.training.seed)
        self.state = State(micro_batch=size)
        self.metrics: dict[str, Any] = {}  # of the last evaluation
        self._stop_requested = False  # of any process, in a distributed run
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT_STEPS)  # seconds and tokens

    @property
    def total_steps(self) -> int:
        """Return the optimizer steps of the whole run."""
        return self.schedule.total_steps

    @property
    def epoch(self) -> float:
        """Return the passes over the training rows so far."""
        return self.state.step / self.schedule.steps_per_epoch

    @property
    def stopped_early(self) -> bool:
        """Return whether the scores no longer improve, by training.early_stopping_patience. A resumed run knows it too."""
        patience = self.config.training.early_stopping_patience
        return patience is not None and self.state.waited >= patience and self.state.step < self.total_steps

    def resume(self, checkpoint: Path) -> None:
        """Continue from a saved checkpoint instead of from the start.

        Weights, optimizer and random generators are restored, so that the run ends as if it had not stopped.
        """
        fingerprint = self.state.fingerprint
        self.state = self.checkpoints.load(checkpoint, self.model, self.optimizer)
        self.state.fingerprint = fingerprint
        self.state.data_hash = self.task.data_hash  # the checkpoint of an earlier release has none
        self.micro_batches.size = self.state.micro_batch

    def events(self) -> Generator[Event]:
        """Train from state.step to the end; yield an event per step, evaluation and checkpoint.

        Raises RunInterruptedError after a checkpoint was saved on request, LossNotFiniteError, EvaluationNotFiniteError,
        OutOfMemoryError, ProcessLostError or DiskError.
        """
        state = self.state
        training = self.config.training
        self.model.train()
        # A checkpoint whose evaluation ended in an error: without scores it cannot become the best.
        is_scored = any(score["step"] == state.step for score in state.scores)
        if state.step and self.evaluates_now() and not is_scored:
            yield from self.evaluate()
            yield self.save()
        if self.stopped_early:
            return
        for rows in self.remaining_batches():
            # One optimizer step. Its notices come first: they say why it took longer than the others.
            step_done = self.train_step(rows)
            yield from self.micro_batches.take_notices()
            yield step_done
            is_last = state.step >= self.total_steps

            evaluates = self.evaluates_now()
            if evaluates:
                yield from self.evaluate()

            # Save when it is due, when asked to stop, and after each evaluation: the best score needs its weights.
            # Several processes must stop at the same step, so each follows what the step's exchange has told all.
            stopping = self._stop_requested if self.plan.world.size > 1 else self.should_save()
            if evaluates or stopping or self.is_due(training.save_strategy, training.save_steps):
                yield self.save()

            # Stop: on request, because the scores no longer improve, or because all steps are done.
            if stopping and not is_last:
                raise RunInterruptedError(
                    Sentence(
                        gettext_noop(
                            "The run was stopped at step {step} of {total_steps}. A checkpoint is saved; resume the run to continue "
                            "from it."
                        ),
                        step=state.step,
                        total_steps=self.total_steps,
                    ),
                    step=state.step,
                )
            if self.stopped_early:
                return
            if evaluates and not is_last:
                yield StageChanged("training")

    def remaining_batches(self) -> Iterator[np.ndarray]:
        """Yield the training rows of each step that is left, from state.step on."""
        while self.state.step < self.total_steps:
            epoch, start = divmod(self.state.step, self.schedule.steps_per_epoch)
            for rows in self.schedule.epoch(epoch)[start:]:
                yield rows
                if self.state.step >= self.total_steps:
                    return

    def evaluates_now(self) -> bool:
        """Return whether an evaluation is due after the current step.

        It always is at the end: a run without scores has no best checkpoint.
        """
        training = self.config.training
        return self.state.step >= self.total_steps or self.is_due(training.eval_strategy, training.eval_steps)

    def is_due(self, strategy: str, every_steps: int) -> bool:
        """Return whether something with this strategy is due after the current step.

        strategy: epoch, steps (every `every_steps`) or no, as in training.eval_strategy and save_strategy.
        """
        period = {"epoch": self.schedule.steps_per_epoch, "steps": every_steps}.get(strategy)
        return period is not None and self.state.step % period == 0

    def train_step(self, rows: np.ndarray) -> StepDone:
        """Take one optimizer step on these training rows and advance the state."""
        state = self.state
        training = self.config.training
        started = time.perf_counter()

        # Learning rate: a function of the step alone. LoRA+ multiplies it for matrix B.
        rate = learning_rate(state.step, self.total_steps, training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["ratio"]

        # Forward and backward. One all-reduce per step carries gradients, loss, micro-batch size and stop requests.
        step_loss = self.micro_batches.accumulate_gradients(rows, state.step)
        if self.plan.world.size > 1:
            exchange = self.micro_batches.exchange_step(float(step_loss), self.should_save())
            step_loss = exchange.loss
            self._stop_requested = exchange.stop

        # Clip, check and update. Nothing is changed by a step that is not finite, so earlier checkpoints stay good.
        max_norm = training.max_grad_norm or math.inf
        step_norm = torch.nn.utils.clip_grad_norm_(self.parameters, max_norm, foreach=True)
        loss, norm = float(step_loss), float(step_norm)  # waits for a GPU, once all up to here is started
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _not_finite_error(state.step, self.task.plan.precision)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

        seconds = time.perf_counter() - started
        return self.record_step(rows, seconds, loss, rate, norm)

    def record_step(self, rows: np.ndarray, seconds: float, loss: float, rate: float, norm: float) -> StepDone:
        """Advance the state by a step on these training rows, and log a point of the loss curve if it is due.

        loss: the mean over `rows`. rate: the learning rate. norm: of the gradient, before it was clipped.
        """
        state = self.state
        tokens = int(self.task.lengths[rows].sum())
        state.step += 1
        state.micro_batch = self.micro_batches.size
        state.loss_sum += loss
        state.tokens += tokens
        state.runtime_s += seconds
        state.unlogged.append(loss)

        mean_loss: float | None = None
        if state.step % self.config.training.logging_steps == 0 or state.step == self.total_steps:
            mean_loss = fmean(state.unlogged)
            measured = {"loss": mean_loss, "learning_rate": rate, "grad_norm": norm}
            state.history.append(self.place_on_curve() | measured)
            state.unlogged.clear()

        # Speed and remaining time, of tokens without padding: steps differ in their number of tokens.
        self._recent.append((seconds, tokens))
        recent_seconds = sum(seconds for seconds, _ in self._recent)
        recent_tokens = sum(tokens for _, tokens in self._recent)
        total_tokens = self.total_steps * float(self.schedule.lengths.sum()) / self.schedule.steps_per_epoch
        return StepDone(
            step=state.step,
            total_steps=self.total_steps,
            epoch=self.epoch,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            tokens=tokens,
            tokens_per_second=recent_tokens / recent_seconds,
            eta_seconds=max(0.0, total_tokens - state.tokens) * recent_seconds / recent_tokens,
            mean_loss=mean_loss,
            total_tokens=state.tokens,
            runtime_s=state.runtime_s,
        )

    def place_on_curve(self) -> dict[str, float]:
        """Return where the current step lies on each axis that a curve can be drawn along."""
        state = self.state
        return {"step": state.step, "epoch": self.epoch, "tokens": state.tokens, "runtime_s": state.runtime_s}

    def evaluate(self) -> Generator[Event]:
        """Evaluate and record the scores. Raises EvaluationNotFiniteError after a checkpoint was saved."""
        yield StageChanged("evaluating")
        state = self.state
        training = self.config.training
        try:
            self.metrics = self.task.evaluate(is_last=state.step >= self.total_steps)
        except EvaluationNotFiniteError as error:
            yield self.save()  # of the steps since the last checkpoint
            message = Sentence(gettext_noop("Evaluation at step {step}: {error}"), step=state.step, error=error.message)
            raise EvaluationNotFiniteError(message, field=error.field, step=state.step, **error.facts) from error
        scores: dict[str, float] = {
            name: self.metrics[name] for name in METRICS[self.config.task] if self.metrics.get(name) is not None
        }

        # Improvement is measured against the scores before this one.
        lower_is_better = training.metric_for_best_model in LOWER_IS_BETTER
        sign = -1.0 if lower_is_better else 1.0
        # A correlation is not defined while all predictions are the same, which is the worst that can be.
        metric = scores.get(training.metric_for_best_model, -1.0)
        best = max((sign * score["metric"] for score in state.scores), default=-math.inf)
        state.waited = 0 if sign * metric > best else state.waited + 1
        state.scores.append({"step": state.step, "metric": metric, "loss": scores["loss"]})
        answers = self.task.shown_answers()
        written = {"answers": [answer["written"] for answer in answers]} if answers else {}
        state.history.append(
            self.place_on_curve() | {f"eval_{name}": value for name, value in scores.items()} | written
        )
        with_answers = [point for point in state.history if "answers" in point]
        if len(with_answers) > MOST_EVALUATIONS:  # those of every second evaluation are dropped
            for point in with_answers[1:-1:2]:
                del point["answers"]
        yield Evaluated(state.step, self.epoch, scores, state.tokens, state.runtime_s, answers)

    def save(self) -> Checkpointed:
        """Write a checkpoint of the current step; all processes wait until it is written. Raises DiskError."""
        if self.plan.world.is_main_process:
            # Not before the first step, which would have to wait for it.
            self.state.base_model_hash = self.state.base_model_hash or self.task.hash_base_model()
            self.checkpoints.save(self.state, self.model, self.optimizer)
        self.plan.world.barrier(self.plan.device)
        path = self.checkpoints.path(self.state.step)
        return Checkpointed(self.state.step, str(path), self.checkpoints.named_steps(self.state))


def _not_finite_error(steps_before: int, precision: str) -> LossNotFiniteError:
    """Return the error for a loss or gradient that is not finite in the step after `steps_before`."""
    if steps_before:
        field = "training.learning_rate"
        message = Sentence(
            gettext_noop(
                "The loss was no longer a finite number at step {step}. Earlier checkpoints are kept. Lower "
                "training.learning_rate and start again."
            ),
            step=steps_before + 1,
        )
    else:  # nothing was learned yet, so the learning rate is not the cause
        field = "model.name" if precision == "fp32" else "training.precision"
        is_fp32 = precision == "fp32"
        remedy = (
            gettext_noop("Choose another base model") if is_fp32 else gettext_noop("Set training.precision to fp32")
        )
        message = Sentence(
            gettext_noop("The loss was not a finite number at the first step, before anything was changed. {remedy}."),
            remedy=Sentence(remedy),
        )
    return LossNotFiniteError(message, field=field, step=steps_before + 1)


def create_optimizer(model: nn.Module, config: RunConfig, plan: DevicePlan) -> torch.optim.Optimizer:
    """Return AdamW over the fp32 adapter; LoRA+ gives matrix B its own learning rate (arXiv 2402.12354)."""
    ratio = config.lora.loraplus_lr_ratio or 1.0
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices_b = [parameter for name, parameter in trainable if "lora_B" in name]
    others = [parameter for name, parameter in trainable if "lora_B" not in name]
    groups = [{"params": others, "ratio": 1.0}, {"params": matrices_b, "ratio": ratio}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.training.learning_rate,
        weight_decay=config.training.weight_decay,
        fused=plan.device.type in {"cpu", "cuda"},
    )
