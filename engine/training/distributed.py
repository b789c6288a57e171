"""Several processes that train one run together, started by torchrun. In a single process all of this does nothing.

Each process holds the whole model and takes every n-th row of a step. Once per step the processes sum their gradients.
The same exchange carries the loss, the micro-batch size that fits and requests to stop, so that all processes do the
same next. Every process can read checkpoints; only the main process (rank 0) writes files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from engine.errors import ProcessesDifferError, ProcessLostError
from engine.sentences import Sentence, gettext_noop


class StepExchange(NamedTuple):
    """What all processes know after a step: total loss, smallest micro-batch size, whether any is to stop."""

    loss: float
    micro_batch: int
    stop: bool


@dataclass(frozen=True, slots=True)
class World:
    """The rank of this process and the number of processes; local_rank counts on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> World:
        """Read the variables that torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK."""
        return cls(
            rank=int(os.environ.get("RANK") or 0),
            size=int(os.environ.get("WORLD_SIZE") or 1),
            local_rank=int(os.environ.get("LOCAL_RANK") or 0),
        )

    @property
    def is_main_process(self) -> bool:
        """Return whether this process writes the results."""
        return self.rank == 0

    def join(self, device: torch.device) -> None:
        """Wait for the other processes and connect to them: by NCCL between GPUs, by gloo between CPUs.

        torchrun gives all processes the address of the first one, in the environment.
        """
        if self.size > 1:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def leave(self) -> None:
        """Disconnect from the other processes, if `join` has connected them."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def share_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of this process, a part of rows: (rows,).

        Each process takes every n-th, so that rows sorted by length are divided evenly. It may get none of a short step.
        """
        return rows[self.rank :: self.size]

    def seed_dropout(self, seed: int, step: int) -> None:
        """Seed torch so that dropout differs between processes and, for exact resuming, depends on the step alone.

        A single process keeps torch's own sequence of random numbers, which its checkpoints save.
        """
        if self.size > 1:
            sequence = np.random.SeedSequence([seed, step, self.rank])
            torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum the tensor over all processes, in place, and return it. Raises ProcessLostError."""
        if self.size > 1:
            try:
                dist.all_reduce(tensor)
            except RuntimeError as error:
                raise ProcessLostError(
                    Sentence(
                        gettext_noop(
                            "Another process of this run ended, so this one stops too; that process's own message says why. Saved "
                            "checkpoints are kept. Start the run again to resume from the last one."
                        )
                    )
                ) from error
        return tensor

    def barrier(self, device: torch.device) -> None:
        """Wait until all processes have arrived here. Raises ProcessLostError.

        It is an all-reduce of one number, because `all_reduce` reports a process that was lost.
        """
        if self.size > 1:
            self.all_reduce(torch.zeros(1, device=device)).item()

    def exchange_step(
        self, parameters: list[torch.nn.Parameter], loss: float, micro_batch: int, stop: bool
    ) -> StepExchange:
        """Sum gradients and loss over all processes; share micro-batch sizes and stop requests in the same all-reduce."""
        # Each process fills its own slot of `sizes` and zeros elsewhere: the sum then holds every process's value.
        sizes = [0.0] * self.size
        sizes[self.rank] = micro_batch
        status = torch.tensor([loss, float(stop), *sizes], device=parameters[0].device)
        # A process without rows in this step has no gradients.
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        total = self.all_reduce(torch.cat([*(gradient.flatten() for gradient in gradients), status]))
        parts = total.split([*(p.numel() for p in parameters), len(status)])
        for parameter, gradient in zip(parameters, parts, strict=False):
            parameter.grad = gradient.view_as(parameter)
        total_loss, stop_requests, *all_sizes = parts[-1].tolist()
        return StepExchange(total_loss, int(min(all_sizes)), stop_requests > 0)

    def refuse_differences(self, fingerprint: str, tensors: Iterable[torch.Tensor], device: torch.device) -> None:
        """Raise ProcessesDifferError unless all processes start with the same settings, data and weights."""
        if self.size == 1:
            return
        digest = hashlib.sha256(fingerprint.encode())
        for tensor in tensors:
            digest.update(tensor.detach().cpu().numpy().tobytes())
        digests = torch.zeros(self.size, dtype=torch.int64, device=device)
        digests[self.rank] = int.from_bytes(digest.digest()[:7])
        if len(set(self.all_reduce(digests).tolist())) > 1:
            raise ProcessesDifferError(
                Sentence(
                    gettext_noop(
                        "The processes of this run found different data, settings or checkpoints, so nothing was trained. Give "
                        "all of them the same files and the same results folder."
                    )
                )
            )


ALONE = World()
