"""Language models in this engine against TRL's SFTTrainer with PEFT, taking turns on the same conversations, adapter and batch size.

    pip install --no-deps --target /tmp/trl trl==1.16.0
    PYTHONPATH=/tmp/trl python bench/causal.py [--steps 6] [--turns 3] [--threads 2]

Both train the sample language model on the sample orders: LoRA of rank 16 on all linear layers, batches of 8 conversations, grouped by
length. The orders begin with the same system prompt, which the engine computes once; `engine-int8-unshared` computes all of their
tokens. Each run is a process of its own. Tokens are real ones, without padding. Speed is by the wall clock and by CPU time: the latter
is that of an idle machine even where others compute, if --threads is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CONTENDERS = ("trl-fp32", "trl-bf16", "engine-fp32", "engine-bf16", "engine-int8", "engine-int8-unshared")
BATCH, RANK, RATE, WARM_UP = 8, 16, 2e-3, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, default=["trl-fp32", "engine-fp32", "engine-int8"]
    )
    parser.add_argument("--worker", choices=CONTENDERS)
    options = parser.parse_args()
    if options.worker:
        system, precision, *unshared = options.worker.split("-")
        if unshared:
            compute_all_tokens()
        measure = measure_trl if system == "trl" else measure_engine
        print(json.dumps(measure(precision, options.steps, options.threads)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.contenders}
    for _turn in range(options.turns):
        for name in options.contenders:
            results[name].append(run_worker(name, options.steps, options.threads))
    print(f"{'':14}{'tokens/s':>10}{'by CPU time':>13}{'loss':>8}{'MiB':>7}")
    for name, measured in results.items():
        middle = {key: median(each[key] for each in measured) for key in measured[0]}
        print(f"{name:14}{middle['wall']:10.0f}{middle['cpu']:13.0f}{middle['loss']:8.3f}{middle['mib']:7.0f}")


def run_worker(name: str, steps: int, threads: int) -> dict[str, float]:
    """Measure one contender in a process of its own."""
    command = [sys.executable, __file__, "--worker", name, "--steps", str(steps), "--threads", str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


class Stopwatch:
    """Time and tokens of the steps after the warm-up."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float, int]] = []
        self.started = (0.0, 0.0)

    def start(self) -> None:
        self.started = (time.perf_counter(), time.process_time())

    def stop(self, tokens: int) -> None:
        wall, cpu = self.started
        self.steps.append((time.perf_counter() - wall, time.process_time() - cpu, tokens))

    def result(self, loss: float) -> dict[str, float]:
        import torch

        from engine.devices import peak_memory_mb

        measured = self.steps[WARM_UP:]
        tokens = sum(step[2] for step in measured)
        wall, cpu = (tokens / sum(step[part] for step in measured) for part in (0, 1))
        return {"wall": wall, "cpu": cpu, "loss": loss, "mib": peak_memory_mb(torch.device("cpu"))}


def compute_all_tokens() -> None:
    """Let the engine compute what conversations have in common as often as it stands there."""
    from engine.kernels import packed_layout

    packed_layout.MOST_COMPUTED = 0.0


def measure_engine(precision: str, steps: int, threads: int) -> dict[str, float]:
    """Train some steps with our engine."""
    from engine import RunConfig, StepDone, train
    from engine.data.rows_ahead import read_rows
    from samples import SAMPLE_LANGUAGE_MODEL

    config = RunConfig.parse(
        {
            "task": "causal_lm",
            "model": {"name": SAMPLE_LANGUAGE_MODEL},
            "data": {"dataset_name": "orders", "eval_samples": 1},
            "lora": {"r": RANK, "lora_alpha": 2 * RANK},
            "training": {
                "per_device_train_batch_size": BATCH,
                "max_steps": steps + WARM_UP + 1,
                "learning_rate": RATE,
                "precision": precision,
                "device": "cpu",
            },
            "system": {"num_threads": threads},
        }
    )
    watch = Stopwatch()
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        rows = read_rows("orders", config.data, config.task, 1, Path(folder))
        events = train(config, data_file=rows, results=Path(folder) / "run")
        for event in events:  # what happens between two events of steps is a step, also the loop's own work
            if isinstance(event, StepDone):
                if watch.started[0]:
                    watch.stop(event.tokens)
                losses.append(event.loss)
                if len(losses) == steps + WARM_UP:
                    events.close()
                    break
                watch.start()
    return watch.result(losses[-1])


def measure_trl(precision: str, steps: int, threads: int) -> dict[str, float]:
    """Train some steps with TRL's SFTTrainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from samples import language_model_path, orders

    torch.set_num_threads(threads)
    base = language_model_path()
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    frame = orders().filter(split="train")
    data = Dataset.from_list(
        [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in frame["messages"].to_list()]
    )
    watch = Stopwatch()

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *arguments: Any, **options: Any) -> None:
            watch.start()

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            watch.stop(sum(seen))
            seen.clear()

    seen: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, per_device_train_batch_size=BATCH, max_steps=steps + WARM_UP, learning_rate=RATE,
            train_sampling_strategy="group_by_length", completion_only_loss=True, use_cpu=True, bf16=False, report_to=[],
            save_strategy="no", logging_steps=1, gradient_checkpointing=False, disable_tqdm=True,
        )  # fmt: skip
        adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        tokenizer = AutoTokenizer.from_pretrained(base)
        trainer = SFTTrainer(
            model,
            args=settings,
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[Watch()],
        )
        collate = trainer.data_collator

        def counting(rows: list[Any]) -> Any:
            batch = collate(rows)
            seen.append(int(batch["attention_mask"].sum()))
            return batch

        trainer.data_collator = counting
        trainer.train()
        loss = next(entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry)
    return watch.result(loss)


if __name__ == "__main__":
    main()
