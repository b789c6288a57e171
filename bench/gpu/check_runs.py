"""The small runs that checks are made of, and how far a step on the device is from one on the CPU."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu.policy import gpu_policy
from bench.gpu.settings import Settings, Shape
from bench.gpu.workload import make_rows
from engine import Event, Rows, RunConfig, train
from engine.training.loop import Loop
from engine.training.run import PreparedRun, Run

TOKENS, ROWS = 32, 16
STEPS = 5


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how the checks run; `folder` has the base models."""

    settings: Settings
    device: str
    folder: Path

    def config(self, shape: Shape, **training: Any) -> RunConfig:
        """Return a run with adapters on all linear layers; `training` adds to that section."""
        section = {
            "per_device_train_batch_size": ROWS,
            "learning_rate": 1e-3,
            "device": self.device,
            "logging_steps": 1,
        }
        return RunConfig.parse(
            {
                "model": {"name": shape.name},
                "lora": {"r": self.settings.rank, "target_modules": "all-linear"},
                "training": section | training,
                "system": {"baseline": False, "num_threads": self.settings.threads},
            }
        )

    def rows(self, shape: Shape, count: int = STEPS * ROWS, tokens: int = TOKENS) -> Rows:
        """Return rows of the lengths that training is timed with."""
        return make_rows(shape, tokens, count, self.settings.spread)

    def prepare(self, config: RunConfig, rows: Rows, results: str) -> PreparedRun:
        """Return a run that is ready for its first step."""
        return Run(config, rows, Path(results), self.folder).prepare()

    def train(self, config: RunConfig, rows: Rows, results: Path, **more: Any) -> list[Event]:
        """Train to the end with the GPU's policy."""
        with gpu_policy(self.device):
            return list(train(config, data_file=rows, results=results, base_models_dir=self.folder, **more))


def compare_with_cpu(bench: Bench, shape: Shape, precision: str) -> tuple[float, float, float]:
    """Return the relative errors of a step's loss, of its worst gradient, and of the worst of some steps' losses."""
    rows = bench.rows(shape)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        reference = bench.prepare(bench.config(shape, device="cpu", precision="fp32"), rows, one).loop
        with gpu_policy(bench.device):
            candidate = bench.prepare(bench.config(shape, precision=precision), rows, other).loop
        start_alike(reference, candidate)
        batches = list(reference.schedule.epoch(0))
        (expected_loss, expected), (loss, actual) = (
            step_gradients(loop, batches[0]) for loop in (reference, candidate)
        )
        errors = [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(actual, expected, strict=True)]
        losses = [np.array([loop.train_step(batch).loss for batch in batches]) for loop in (reference, candidate)]
    return abs(loss / expected_loss - 1), float(np.max(errors)), float(np.abs(losses[1] / losses[0] - 1).max())


def start_alike(reference: Loop, candidate: Loop) -> None:
    """Give both the same adapter and head, and matrices B that are not zero, so that every gradient counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one, other in zip(reference.parameters, candidate.parameters, strict=True):
            one.add_(0.02 * torch.randn(one.shape, generator=generator).to(one.device))
            other.copy_(one)


def step_gradients(loop: Loop, rows: np.ndarray) -> tuple[float, list[torch.Tensor]]:
    """Return a step's loss and its gradients, one per trained tensor, on the CPU in fp64. Changes no weight."""
    loop.model.train()
    loss = float(loop.micro_batches.accumulate_gradients(rows, 0))
    gradients = [torch.as_tensor(parameter.grad).double().cpu() for parameter in loop.parameters]
    loop.optimizer.zero_grad(set_to_none=True)
    return loss, gradients
