"""Check that the engine computes on a GPU what it computes on a CPU, and that nothing is lost when memory is short.

Each check returns what it measured and whether that is good. On a CPU the same checks run with the GPU's policy: packed
batches, and attention in fp32 or bf16 as a GPU without flash attention computes it.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu.check_runs import ROWS, STEPS, Bench, compare_with_cpu, start_alike, step_gradients
from bench.gpu.policy import determinism_warnings, missing_for_quantization, scarce_memory
from bench.gpu.settings import CHECKED, Shape
from engine import EngineError, Event, Finished, Notice, RunConfig, StepDone

# Relative errors: fp32 differs by the order of sums alone; bf16 has 8 bits, and errors add up over three layers.
FP32_LIMIT, FP32_STEPS_LIMIT = 1e-4, 1e-3
BF16_LIMIT, BF16_LOSS_LIMIT = 0.1, 0.02
MICRO_BATCH_LIMIT = 1e-4
SERVING_LIMIT = 1e-3  # of a probability


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found: good, bad or None if it could not be made here."""

    good: bool | None
    measured: str


def fp32_is_the_cpus(bench: Bench, shape: Shape) -> Outcome:
    """Compare loss and gradients of a step, and the losses of some steps, with those of the fused encoder on the CPU."""
    loss, gradient, losses = compare_with_cpu(bench, shape, "fp32")
    good = loss < FP32_LIMIT and gradient < FP32_LIMIT and losses < FP32_STEPS_LIMIT
    return Outcome(good, f"loss {loss:.0e}, gradients {gradient:.0e}, {STEPS} steps {losses:.0e}")


def bf16_is_within_noise(bench: Bench, shape: Shape) -> Outcome:
    """Compare the same in bf16 with fp32 on the CPU."""
    loss, gradient, losses = compare_with_cpu(bench, shape, "bf16")
    good = loss < BF16_LOSS_LIMIT and gradient < BF16_LIMIT and losses < BF16_LOSS_LIMIT
    return Outcome(good, f"loss {loss:.0e}, gradients {gradient:.0e}, {STEPS} steps {losses:.0e}")


def graphs_are_launches(bench: Bench, shape: Shape) -> Outcome:
    """Compare losses and gradients of CUDA graphs with those of the same kernels, launched one by one, in two micro-batches."""
    if bench.device != "cuda":
        return Outcome(None, "needs a GPU")
    config = bench.config(shape, precision="bf16", num_train_epochs=3)
    rows = bench.rows(shape)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        launched, replayed = (bench.prepare(config, rows, folder).loop for folder in (one, other))
        launched.task.graphs.close()  # type: ignore[attr-defined]  # which only this task has
        start_alike(launched, replayed)
        for loop in (launched, replayed):
            loop.model.train()
            loop.micro_batches.size = ROWS // 2
        batches = [batch for epoch in range(3) for batch in launched.schedule.epoch(epoch)]
        losses = [np.array([loop.train_step(batch).loss for batch in batches]) for loop in (launched, replayed)]
        expected, actual = (step_gradients(loop, batches[0])[1] for loop in (launched, replayed))
    graphs = len(replayed.task.graphs.graphs)  # type: ignore[attr-defined]
    loss = float(np.abs(losses[1] / losses[0] - 1).max())
    gradient = max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(actual, expected, strict=True))
    good = graphs > 0 and loss < BF16_LOSS_LIMIT and gradient < BF16_LIMIT
    return Outcome(good, f"{graphs} graphs, {len(batches)} steps {loss:.0e}, then gradients {gradient:.0e}")


def resume_is_byte_equal(bench: Bench, shape: Shape) -> Outcome:
    """Train with dropout in deterministic mode: in one piece, again, and stopped and resumed, to the same bytes."""
    config = bench.config(shape, deterministic=True, num_train_epochs=2)
    config.lora.lora_dropout = 0.1
    rows = bench.rows(shape)
    with tempfile.TemporaryDirectory() as name, determinism_warnings() as warned:
        folder = Path(name)
        losses = {part: losses_of(bench.train(config, rows, folder / part)) for part in ("whole", "again")}
        calls = iter(range(STEPS))
        try:
            bench.train(config, rows, folder / "resumed", should_save=lambda: next(calls) == STEPS - 2)
        except EngineError as error:
            if error.code != "interrupted":
                raise
        losses["resumed"] = losses_of(bench.train(config, rows, folder / "resumed"))
        adapters = {part: adapter_bytes(folder / part) for part in ("whole", "again", "resumed")}
    good = adapters["whole"] == adapters["again"] == adapters["resumed"]
    good = good and losses["whole"] == losses["again"] and losses["whole"][STEPS - 1 :] == losses["resumed"]
    again = "the same" if adapters["whole"] == adapters["again"] else "other"
    resumed = "the same" if adapters["whole"] == adapters["resumed"] else "other"
    return Outcome(good, f"again: {again} bytes, resumed: {resumed} bytes{'; ' if warned else ''}{'; '.join(warned)}")


def memory_runs_out(bench: Bench, shape: Shape) -> Outcome:
    """Train with too little memory for a step: in smaller micro-batches, to the same losses."""
    count = bench.settings.scarce_rows
    config = bench.config(shape, precision="fp32", per_device_train_batch_size=count, max_steps=2, eval_strategy="no")
    config.training.per_device_eval_batch_size = 8
    rows = bench.rows(shape, count, tokens=64)
    with tempfile.TemporaryDirectory() as folder:
        reset_peak(bench.device)
        plenty = bench.train(config, rows, Path(folder) / "plenty")
        with scarce_memory(bench.device):
            scarce = bench.train(config, rows, Path(folder) / "scarce")
    notices = [event for event in scarce if isinstance(event, Notice) and event.code == "out_of_memory"]
    size = next(event for event in reversed(scarce) if isinstance(event, Finished)).metrics["system"]["micro_batch"]
    expected, actual = np.array(losses_of(plenty)), np.array(losses_of(scarce))
    error = float(np.abs(actual / expected - 1).max())
    good = bool(notices) and size < count and error < MICRO_BATCH_LIMIT
    return Outcome(good, f"micro-batch {count} → {size}, losses {error:.0e}")


def quantized_training(bench: Bench, shape: Shape, field: str) -> Outcome:
    """Train with frozen weights in 8 or 4 bits until the final model is saved and loads again."""
    missing = missing_for_quantization(bench.device, field)
    if missing:
        return Outcome(None, missing)
    # The configuration refuses the CPU by name; with auto, the policy of this bench lets it try.
    device = "auto" if bench.device == "cpu" else bench.device
    config = bench.config(shape, device=device, num_train_epochs=6, learning_rate=5e-3)
    config = RunConfig.parse(config.model_dump() | {"model": {"name": shape.name, field: True}})
    with tempfile.TemporaryDirectory() as folder:
        events = bench.train(config, bench.rows(shape), Path(folder))
    losses = losses_of(events)
    first, last = np.mean(losses[:STEPS]), np.mean(losses[-STEPS:])
    finished = any(isinstance(event, Finished) for event in events)
    return Outcome(bool(finished and last < first), f"{len(losses)} steps, loss {first:.3f} → {last:.3f}")


def serving_is_the_cpus(bench: Bench, shape: Shape) -> Outcome:
    """Compare probabilities of several adapters over one base model, in common batches, with those of the CPU."""
    from bench.gpu.serving import make_adapters, predict_mixed

    texts = bench.rows(shape, 24).train.texts
    with tempfile.TemporaryDirectory() as folder:
        adapters = make_adapters(bench.folder / shape.name, Path(folder), 4, bench.settings.rank)
        expected, actual = (predict_mixed(adapters, texts, bench.folder, name) for name in ("cpu", bench.device))
    error = float(np.abs(expected - actual).max())
    return Outcome(error < SERVING_LIMIT, f"probabilities {error:.0e}")


def losses_of(events: list[Event]) -> list[float]:
    """Return the loss of each step."""
    return [event.loss for event in events if isinstance(event, StepDone)]


def adapter_bytes(results: Path) -> bytes:
    """Return the weights of the final model, as they are on the disk."""
    return (results / "artifacts/final_model/adapter_model.safetensors").read_bytes()


def reset_peak(device: str) -> None:
    """Let the peak of the GPU's memory start anew."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def all_checks() -> list[tuple[str, Callable[[Bench], Outcome]]]:
    """Return the checks by name. Determinism comes first: cuBLAS reads its setting when it is first used."""
    bert, roberta = CHECKED
    return [
        ("resume is byte-equal", lambda bench: resume_is_byte_equal(bench, bert)),
        ("fp32 equals the CPU, BERT", lambda bench: fp32_is_the_cpus(bench, bert)),
        ("fp32 equals the CPU, RoBERTa", lambda bench: fp32_is_the_cpus(bench, roberta)),
        ("bf16 within noise, BERT", lambda bench: bf16_is_within_noise(bench, bert)),
        ("bf16 within noise, RoBERTa", lambda bench: bf16_is_within_noise(bench, roberta)),
        ("graphs equal launches, BERT", lambda bench: graphs_are_launches(bench, bert)),
        ("graphs equal launches, RoBERTa", lambda bench: graphs_are_launches(bench, roberta)),
        ("out of memory", lambda bench: memory_runs_out(bench, bert)),
        ("serving equals the CPU", lambda bench: serving_is_the_cpus(bench, bert)),
        ("8 bits train to the end", lambda bench: quantized_training(bench, bert, "load_in_8bit")),
        ("4 bits train to the end", lambda bench: quantized_training(bench, bert, "load_in_4bit")),
    ]


def run_checks(bench: Bench) -> Iterator[dict[str, Any]]:
    """Make all checks, and yield a row of the table for each. A check that raises is a bad one; the others go on."""
    for name, check in all_checks():
        started = time.perf_counter()
        try:
            outcome = check(bench)
        except Exception as error:  # whatever it is, it belongs into the table
            traceback.print_exc()
            outcome = Outcome(False, " ".join(f"{type(error).__name__}: {error}".split())[:200])
        result = {True: "ok", False: "FAILED", None: "not made"}[outcome.good]
        yield {"check": name, "result": result, "measured": outcome.measured, "seconds": time.perf_counter() - started}
