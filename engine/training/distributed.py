"""Several processes that train one run together, as torchrun starts them; for a single process all of this does nothing.

Each process holds the whole model and takes every n-th row of a step. Once a step the sums of their gradients go round,
and with them the loss, the micro-batch that fits and the wish to stop, so that all do the same next. Every process can read
checkpoints; only the one that leads writes files.
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

from engine.errors import EngineError


class ProcessLost(EngineError):
    """Another process of this run has ended, or can't be reached."""

    code = "process_lost"


class ProcessesDiffer(EngineError):
    """The processes of a run would not train the same thing."""

    code = "processes_differ"


class Told(NamedTuple):
    """What all processes know after a step: summed loss, the smallest micro-batch, whether any was asked to stop."""

    loss: float
    micro_batch: int
    stop: bool


@dataclass(frozen=True, slots=True)
class World:
    """Which of how many processes this is; local_rank counts on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> World:
        """As torchrun tells it: RANK, WORLD_SIZE, LOCAL_RANK."""
        rank, size, local_rank = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(int(rank or 0), int(size or 1), int(local_rank or 0))

    @property
    def leads(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def join(self, device: torch.device) -> None:
        """Wait for the others: NCCL between GPUs, gloo between CPUs."""
        if self.size > 1:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def leave(self) -> None:
        """Undo `join`, where it came so far."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This process's rows; of rows in the order of their lengths, all processes get equally long ones."""
        return rows[self.rank :: self.size]

    def seed(self, seed: int, step: int) -> None:
        """Dropout that differs between processes and depends on the step alone, so that a resumed run draws it again."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1, np.uint64)[0] >> 1))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, summed over all processes in place. Raises ProcessLost."""
        if self.size > 1:
            try:
                dist.all_reduce(tensor)
            except RuntimeError as error:
                raise ProcessLost(
                    "Another process of this run ended, so this one stops too; what that one says tells why. "
                    "Checkpoints that were written are kept. Start the run again to go on from the last one."
                ) from error
        return tensor

    def wait(self, device: torch.device) -> None:
        """Until all processes are here."""
        if self.size > 1:
            self.sum(torch.zeros(1, device=device)).item()

    def after_step(self, parameters: list[torch.nn.Parameter], loss: float, micro_batch: int, stop: bool) -> Told:
        """Sum the gradients and what each has to tell, in one exchange."""
        sizes = [0.0] * self.size
        sizes[self.rank] = micro_batch
        told = torch.tensor([loss, float(stop), *sizes], device=parameters[0].device)
        gradients = (p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters)
        flat = self.sum(torch.cat([*(gradient.flatten() for gradient in gradients), told]))
        parts = flat.split([*(p.numel() for p in parameters), len(told)])
        for parameter, part in zip(parameters, parts, strict=False):
            parameter.grad = part.view_as(parameter)
        loss, asked, *sizes = parts[-1].tolist()
        return Told(loss, int(min(sizes)), asked > 0)

    def refuse_differences(self, fingerprint: str, tensors: Iterable[torch.Tensor], device: torch.device) -> None:
        """All processes start from the same settings, data and weights, or none does. Raises ProcessesDiffer."""
        if self.size == 1:
            return
        digest = hashlib.sha256(fingerprint.encode())
        for tensor in tensors:
            digest.update(tensor.detach().cpu().numpy().tobytes())
        found = torch.zeros(self.size, dtype=torch.int64, device=device)
        found[self.rank] = int.from_bytes(digest.digest()[:7])
        if len(set(self.sum(found).tolist())) > 1:
            raise ProcessesDiffer(
                "The processes of this run found different data, settings or checkpoints, so none was trained. "
                "Give all of them the same files and the same results folder."
            )


ALONE = World()
