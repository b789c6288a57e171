"""Micro-batches: split a step's rows so that they fit into memory, without changing the step's result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
import torch
from torch import nn

from engine.devices import DevicePlan
from engine.errors import OutOfMemoryError
from engine.events import Notice
from engine.out_of_memory import fits, is_out_of_memory, largest_fitting, release_memory, retry_with_half
from engine.sentences import Sentence, gettext_noop
from engine.tasks import Task
from engine.training.distributed import StepExchange

SHORTEST_ADVISED = 8  # tokens; no shorter data.max_length is recommended


@dataclass(frozen=True, slots=True)
class SumOfLosses:
    """The losses of micro-batches, each (), which a GPU may still have to compute."""

    losses: list[torch.Tensor]

    def __float__(self) -> float:
        """Return their sum."""
        return float(sum(loss.item() for loss in self.losses))


class MicroBatches:
    """Accumulates the gradients of a step, a micro-batch at a time.

    On a CPU, the size shrinks before memory runs out, as far as the estimate says; on any device, it shrinks when memory
    does run out. It never grows again. Where a single row is too much, activations are computed again if the task can do so.
    All processes of a distributed run use the smallest size of any of them.
    """

    def __init__(self, task: Task, plan: DevicePlan, parameters: list[nn.Parameter], size: int, seed: int) -> None:
        self.task = task
        self.plan = plan
        self.parameters = parameters
        self.size = size
        self.seed = seed
        self._held_bytes = 0.0  # estimate of the largest micro-batch so far, whose memory the allocator still holds
        self._notices: list[Notice] = []

    def accumulate_gradients(self, rows: np.ndarray, step: int) -> SupportsFloat:
        """Accumulate the gradients of this process's share of `rows` and return its part of their mean loss.

        float() of it waits for a GPU, which meanwhile takes further work.
        Raises OutOfMemoryError if not even a single row fits whose activations are computed again.
        """
        device = self.plan.device
        weight = self.task.loss_weight(rows)
        rows = self.plan.world.share_of(rows)
        self._shrink_by_estimate(rows)
        self.plan.world.seed_dropout(self.seed, step)
        cpu_generator = torch.get_rng_state()
        gpu_generator = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

        def start_over() -> None:
            # The failed attempt has left part of a gradient and has drawn random numbers for dropout.
            self._clear_gradients()
            torch.set_rng_state(cpu_generator)
            if gpu_generator is not None:
                torch.cuda.set_rng_state(gpu_generator, device)
            self._held_bytes = 0.0

        def start_over_with(size: int) -> None:
            start_over()
            self._shrink_to(size)

        while True:
            try:
                return retry_with_half(lambda _: self._backward(rows, weight), self.size, device, start_over_with)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler: the traceback would keep the failed attempt's tensors alive.
            if not self._recompute_activations():
                raise self._single_row_error(rows, step)
            start_over()
            release_memory(device)

    def exchange_step(self, loss: float, stop: bool) -> StepExchange:
        """Sum gradients and loss over all processes, and agree on the micro-batch size and on whether to stop."""
        exchange = self.plan.world.exchange_step(self.parameters, loss, self.size, stop)
        if exchange.micro_batch < self.size:
            self._shrink_to(exchange.micro_batch)
        return exchange

    def take_notices(self) -> list[Notice]:
        """Return the notices since the last call, oldest first; the loop yields them as events."""
        notices = self._notices
        self._notices = []
        return notices

    def _backward(self, rows: np.ndarray, weight: float) -> SumOfLosses:
        """Add the gradients of `rows`, a micro-batch at a time; return their summed loss divided by `weight`."""
        starts = range(0, len(rows), self.size)
        return SumOfLosses([self.task.backward(rows[start : start + self.size], weight) for start in starts])

    def _shrink_by_estimate(self, rows: np.ndarray) -> None:
        """Shrink to the largest size whose estimated memory is free. Estimates are for CPUs only."""
        if self.plan.device.type != "cpu" or not len(rows):
            return  # a GPU reports cleanly when memory runs out; on a CPU, Linux may kill the process instead
        longest = int(self.task.lengths[rows].max())

        def estimate_bytes(size: int) -> float:
            # Processes on one machine share its memory.
            return self.plan.world.size * self.task.estimate_step_bytes(min(size, len(rows)), longest)

        size = largest_fitting(self.size, estimate_bytes, self._held_bytes)
        if size < self.size:
            # Releasing unused memory may be enough, and keeps the heap from fragmenting while memory is scarce.
            release_memory(self.plan.device)
            size = largest_fitting(self.size, estimate_bytes, self._held_bytes)
        if size == 1 and not fits(estimate_bytes(1), self._held_bytes):
            self._recompute_activations()
        self._held_bytes = max(self._held_bytes, estimate_bytes(size))
        if size < self.size:
            self._shrink_to(size)

    def _recompute_activations(self) -> bool:
        """Let the task keep fewer activations, and tell the person who trains; return whether it does so only now."""
        if not self.task.recompute_activations():
            return False
        message = Sentence(
            gettext_noop(
                "A single row needs more memory than is free, so layers are now computed again in the backward pass (gradient "
                "checkpointing). Steps take about a third longer; the result stays the same."
            )
        )
        self._notices.append(Notice("warning", "gradient_checkpointing", message))
        return True

    def _shrink_to(self, size: int) -> None:
        """Use smaller micro-batches from now on, and tell the person who trains."""
        self.size = size
        message = Sentence(
            gettext_noop(
                "A step needs more memory than is free, so its rows are now processed in micro-batches of {size}. "
                "The batch size and the result stay the same."
            ),
            size=size,
        )
        self._notices.append(Notice("warning", "out_of_memory", message))

    def _clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _single_row_error(self, rows: np.ndarray, step: int) -> OutOfMemoryError:
        """Return the error for a row that does not fit alone, with the longest length that does fit as advice."""
        longest = int(self.task.lengths[rows].max())
        # Try half of it, a quarter, …, each with the longest row that is no longer than that.
        fitting_length: int | None = None
        length = longest // 2
        while fitting_length is None and length >= SHORTEST_ADVISED:
            release_memory(self.plan.device)
            short_rows = np.flatnonzero(self.task.lengths <= length)
            longest_of_them = short_rows[self.task.lengths[short_rows].argsort()[-1:]]
            try:
                self._backward(longest_of_them, 1.0)
                fitting_length = length
            except (RuntimeError, MemoryError, ValueError):
                length //= 2
            finally:
                self._clear_gradients()
        kept = gettext_noop("The last checkpoint is kept.") if step else gettext_noop("Nothing was trained.")
        advice = gettext_noop("Choose a smaller base model, or a smaller lora.r.")
        if fitting_length:
            advice = gettext_noop("Set data.max_length to {fits}, or choose a smaller base model, or a smaller lora.r.")
        return OutOfMemoryError(
            Sentence(
                gettext_noop("One row of {longest} tokens does not fit into this machine's memory. {kept} {advice}"),
                longest=longest,
                kept=Sentence(kept),
                advice=Sentence(advice, fits=fitting_length),
            ),
            field="data.max_length" if fitting_length else "model.name",
            fits=fitting_length,
        )
