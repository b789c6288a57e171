"""This engine against the Hugging Face Trainer with PEFT, taking turns on the same rows, adapter and batch size.

    python bench/train.py            quick: three seeds, 1,920 rows, some five minutes on two cores
    python bench/train.py --full     three seeds, 12,000 rows, two epochs; the better part of an hour on two cores
    python bench/train.py --base bert-base --steps 5 --seeds 1    a randomly initialised bert-base; speed only, three minutes

Each run is a process of its own, so that its peak memory and its start are its own. Tokens are real ones, without
padding. Utilisation is 4 × (weights of the encoder's linear layers) × tokens/s over the measured matrix-product peak:
two for the forward pass, two for the input gradients, and none for frozen weights' gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = {
    "trainer-128": "Trainer, padded to 128",
    "trainer": "Trainer, dynamic padding",
    "engine": "Lorasite engine",
}
PRECISIONS = ("fp32", "bf16", "int8")
WARM_UP = 3
EPOCHS_FULL, ROWS_FULL, ROWS_QUICK, EVAL_ROWS = 2, 12_000, 1_920, 1_000
PADDED_STEPS = 12
PEAK_SIZE = 1024


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        _prepare(options)
        peak = _spawn(options, "peak", 0)
        reached = ", ".join(f"{peak[name]:.0f} {name}" for name in PRECISIONS if name in peak)
        print(f"Matrix-product peak in GFLOP/s: {reached}; {peak['machine']}")
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for seed in range(options.seeds):
            for name in CONTENDERS:
                if name == "trainer-128" and seed:
                    continue
                found[name].append(_spawn(options, name, seed))
                print(_line(name, found[name][-1], peak), flush=True)
        _summary(found)
        fork = _spawn(options, "fork", 0)
        print(f"Forked worker, from the start of the run to its first step: {fork['cold_s']:.2f} s, "
              f"{fork['warm_s']:.2f} s with cached tokens")  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="three seeds, 12,000 rows, two epochs")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument(
        "--steps", type=int, default=0, help="stop after this many steps; accuracy is then not measured"
    )
    parser.add_argument("--base", default="sample", choices=["sample", "bert-base"], help="base model")
    parser.add_argument(
        "--targets", default="preset", choices=["preset", "query-value", "all-linear"], help="adapted layers"
    )
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.0, help="lora_dropout of all contenders")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--precision", default="auto", choices=["auto", *PRECISIONS], help="this engine's")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def _prepare(options: argparse.Namespace) -> None:
    sys.path.insert(0, str(ROOT))
    import polars as pl

    from samples import tweets_en

    frame = tweets_en().filter(pl.col("confidence") >= 0.6).unique("text", keep="first", maintain_order=True)
    frame.select("text", "label").write_parquet(Path(options.folder) / "tweets.parquet")
    if options.base == "bert-base":
        _spawn(options, "make-base", 0)


def _spawn(options: argparse.Namespace, worker: str, seed: int) -> dict[str, Any]:
    arguments = [sys.executable, __file__, "--worker", worker, "--seed", str(seed), "--folder", options.folder]
    for name in ("steps", "base", "precision", "targets", "rank", "dropout", "learning_rate"):
        arguments += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    arguments += ["--full"] if options.full else []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    environment["STARTED"] = str(time.time())  # psutil's time of creation may be wrong by a second
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{worker} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _line(name: str, result: dict[str, Any], peak: dict[str, Any]) -> str:
    share = result["tokens_per_second"] * result["flops_per_token"] / (peak[result["precision"]] * 1e9)
    accuracy = "" if result["accuracy"] is None else f"  accuracy {result['accuracy']:.4f}"
    return (
        f"{CONTENDERS[name]:26} {result['tokens_per_second']:8,.0f} tokens/s  {share:4.0%} of the peak  "
        f"{result['peak_mb']:6,.0f} MiB  first step after {result['first_step_s']:4.1f} s{accuracy}"
    )


def _summary(found: dict[str, list[dict[str, Any]]]) -> None:
    speeds = {name: fmean(result["tokens_per_second"] for result in results) for name, results in found.items()}
    for name in ("trainer", "trainer-128"):
        print(f"{speeds['engine'] / speeds[name]:.2f} times the {CONTENDERS[name]}")
    if found["engine"][0]["accuracy"] is not None:
        means = {name: fmean(result["accuracy"] for result in found[name]) for name in ("trainer", "engine")}
        print(
            f"Held-out accuracy over {len(found['engine'])} seed(s): Trainer {means['trainer']:.4f}, engine {means['engine']:.4f}"
        )


def _config(options: argparse.Namespace) -> Any:
    from engine import RunConfig

    config = RunConfig.from_yaml((ROOT / "config/default.yaml").read_text(encoding="utf-8")).model_dump()
    config["data"] |= {"train_samples": ROWS_FULL if options.full else ROWS_QUICK, "eval_samples": EVAL_ROWS}
    config["training"] |= {"num_train_epochs": EPOCHS_FULL if options.full else 1, "seed": options.seed}
    config["training"] |= {
        "max_steps": options.steps or None,
        "precision": options.precision,
        "eval_strategy": "no",
        "save_strategy": "no",
    }
    if options.targets != "preset":
        config["training"]["learning_rate"] = options.learning_rate
        config["lora"] |= {"r": options.rank, "lora_alpha": 2 * options.rank, "lora_dropout": options.dropout}
        config["lora"]["target_modules"] = "all-linear" if options.targets == "all-linear" else None
    config["model"]["name"] = "bert-base" if options.base == "bert-base" else config["model"]["name"]
    config["system"]["baseline"] = False
    return RunConfig.parse(config)


def _engine(options: argparse.Namespace) -> dict[str, Any]:
    from engine import Evaluated, Prepared, StepDone, train

    clock, config = _Clock(), _config(options)
    accuracy, precision = None, "fp32"
    folder = Path(options.folder)
    with tempfile.TemporaryDirectory() as results:
        for event in train(config, data_file=folder / "tweets.parquet", results=Path(results), base_models_dir=folder):
            if isinstance(event, Prepared):
                precision = event.precision
            elif isinstance(event, StepDone):
                clock.step(event.tokens)
            elif isinstance(event, Evaluated):
                accuracy = event.metrics["accuracy"]
                break
            if options.steps and clock.steps >= options.steps:
                break
    return clock.result(_flops(options)) | {"accuracy": None if options.steps else accuracy, "precision": precision}


def _trainer(options: argparse.Namespace, pad_to: int | None = None) -> dict[str, Any]:
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    from engine import resolve_base_model
    from engine.data.rows import load_rows

    config = _config(options)
    steps = min(options.steps or PADDED_STEPS, PADDED_STEPS) if pad_to else options.steps
    base = resolve_base_model(config.model.name, Path(options.folder))
    rows = load_rows(Path(options.folder) / "tweets.parquet", config.data, config.training.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)

    def examples(split: Any) -> list[dict[str, Any]]:
        encoded = tokenizer(split.texts, truncation=True, max_length=config.data.max_length)
        pairs = zip(encoded["input_ids"], encoded["attention_mask"], split.labels.tolist(), strict=True)
        return [{"input_ids": ids, "attention_mask": mask, "labels": label} for ids, mask, label in pairs]

    set_seed(config.training.seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(rows.labels))
    lora = config.lora
    targets = lora.target_modules or ["query", "value"]
    model = get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS", r=lora.r, lora_alpha=lora.lora_alpha, lora_dropout=lora.lora_dropout,
            target_modules=targets, exclude_modules=["classifier"] if targets == "all-linear" else None,
        ),
    )  # fmt: skip
    clock, seen = _Clock(), []
    collate = DataCollatorWithPadding(tokenizer, padding="max_length" if pad_to else True, max_length=pad_to)

    def collated(batch: list[dict[str, Any]]) -> Any:
        seen.append(sum(len(row["input_ids"]) for row in batch))
        return collate(batch)

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step(seen[clock.steps])

    arguments = TrainingArguments(
        tempfile.mkdtemp(dir=options.folder), max_steps=steps or -1, num_train_epochs=config.training.num_train_epochs,
        per_device_train_batch_size=config.training.per_device_train_batch_size, per_device_eval_batch_size=64,
        learning_rate=config.training.learning_rate, warmup_steps=config.training.warmup_ratio, save_strategy="no",
        report_to=[], logging_steps=10_000, disable_tqdm=True, seed=config.training.seed,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=examples(rows.train), data_collator=collated, callbacks=[Watch()])
    trainer.train()
    result = clock.result(_flops(options)) | {"accuracy": None, "precision": "fp32"}
    if not steps:
        predictions = trainer.predict(examples(rows.eval))
        result["accuracy"] = float((np.argmax(predictions.predictions, -1) == rows.eval.labels).mean())
    torch.set_grad_enabled(True)
    return result


class _Clock:
    """Time of steps after the first few, and when the first one ended."""

    def __init__(self) -> None:
        self.steps, self.tokens, self.first_s, self.since, self.until = 0, 0, 0.0, 0.0, 0.0

    def step(self, tokens: int) -> None:
        self.steps += 1
        if self.steps == 1:
            self.first_s = time.time() - float(os.environ["STARTED"])
        if self.steps <= WARM_UP:
            self.since = time.perf_counter()
        else:
            self.tokens += tokens
            self.until = time.perf_counter()

    def result(self, flops: float) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        return {
            "tokens_per_second": self.tokens / max(1e-9, self.until - self.since),
            "peak_mb": peak,
            "first_step_s": self.first_s,
            "flops_per_token": flops,
        }


def _flops(options: argparse.Namespace) -> float:
    width, layers = (768, 12) if options.base == "bert-base" else (384, 6)
    return 4.0 * layers * 12 * width * width


def _peak(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from engine.devices import cpu_has_bf16, usable_cores
    from engine.kernels import int8

    torch.set_num_threads(usable_cores())
    found = {"fp32": _product_peak(_product(torch.float32)), "machine":
             f"{usable_cores()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"}  # fmt: skip
    found |= {"bf16": _product_peak(_product(torch.bfloat16))} if cpu_has_bf16() else {}
    return found | ({"int8": _product_peak(_int8_product())} if int8.available() else {})


def _product(dtype: Any) -> Callable[[], Any]:
    import torch

    one, other = torch.randn(PEAK_SIZE, PEAK_SIZE).to(dtype), torch.randn(PEAK_SIZE, PEAK_SIZE).to(dtype)
    return lambda: one @ other


def _int8_product() -> Callable[[], Any]:
    import torch

    from engine.kernels.int8 import Int8Weight

    weight = Int8Weight(torch.randn(PEAK_SIZE, PEAK_SIZE))
    steps, _ = weight.quantised(torch.randn(PEAK_SIZE, PEAK_SIZE).bfloat16())
    return lambda: weight.product(steps)


def _product_peak(product: Callable[[], Any], rounds: int = 8) -> float:
    best = 0.0
    for _ in range(rounds):
        product()
        started = time.perf_counter()
        for _ in range(rounds):
            product()
        best = max(best, rounds * 2 * PEAK_SIZE**3 / (time.perf_counter() - started))
    return best / 1e9


def _fork(options: argparse.Namespace) -> dict[str, Any]:
    """What a worker does: import everything, then fork for each run."""
    import peft
    import transformers

    import engine.training.run
    from engine import warm_up

    assert peft and transformers and engine.training.run
    warm_up()
    return {"cold_s": _forked_first_step(options), "warm_s": _forked_first_step(options)}


def _forked_first_step(options: argparse.Namespace) -> float:
    from engine import StepDone, train

    folder, started = Path(options.folder), time.time()
    reading, writing = os.pipe()
    if not os.fork():
        results = Path(tempfile.mkdtemp(dir=folder))
        events = train(_config(options), data_file=folder / "tweets.parquet", results=results, cache_dir=folder / "cache",
                       base_models_dir=folder)  # fmt: skip
        next(event for event in events if isinstance(event, StepDone))
        os.write(writing, str(time.time() - started).encode())
        os._exit(0)
    seconds = float(os.read(reading, 100))
    os.wait()
    return seconds


def _make_base(options: argparse.Namespace) -> dict[str, Any]:
    from transformers import AutoTokenizer, BertConfig, BertModel

    from samples import base_model_path

    folder = Path(options.folder) / "bert-base"
    BertModel(BertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_model_path()).save_pretrained(folder)
    return {}


WORKERS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "engine": _engine,
    "trainer": _trainer,
    "trainer-128": lambda options: _trainer(options, pad_to=128),
    "peak": _peak,
    "fork": _fork,
    "make-base": _make_base,
}

if __name__ == "__main__":
    main()
