"""The forecast of a run beside the run itself, over base model × length × batch, each in a process of its own.

    python bench/estimate.py             the sample base model and a small BERT of other sizes: some minutes on two cores
    python bench/estimate.py --bert-base a randomly initialised bert-base as well
    python bench/estimate.py --orders    instead the sample language model on the sample orders, twice: the second run finds what
                                         the base model has computed for the first one (--short: 8 steps, 32 evaluation rows,
                                         one thread)

Prints what was estimated, what was measured, and how far off that was. Both start from imported libraries, as in a worker.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ORDERS = ROOT / "config/language_models/orders.yaml"
SAMPLE = "sentence-transformers/all-MiniLM-L6-v2"
LENGTHS, BATCHES = (32, 128), (8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bert-base", action="store_true", help="a further base model")
    parser.add_argument("--orders", action="store_true", help="the sample language model instead")
    parser.add_argument("--short", action="store_true", help="with --orders: a shorter run")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--worker", choices=["estimate", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        setup = json.loads(options.setup)
        return print(json.dumps(estimate(setup) if options.worker == "estimate" else run(setup)))
    with tempfile.TemporaryDirectory() as folder:
        if options.orders:
            orders(Path(folder), options.short)
        else:
            grid(Path(folder), options)


def orders(folder: Path, is_short: bool) -> None:
    """Compare two runs of the language model's preset with the estimates before each."""
    from engine import resolve_base_model
    from samples import SAMPLE_LANGUAGE_MODEL

    resolve_base_model(SAMPLE_LANGUAGE_MODEL)  # converted once for all runs
    for number in (1, 2):
        setup = {"folder": str(folder), "preset": str(ORDERS), "name": f"run-{number}", "short": is_short}
        estimated, measured = ask_worker("estimate", setup), ask_worker("train", setup)
        seconds, memory = (estimated[key] / measured[key] - 1 for key in ("seconds", "memory_mb"))
        print(f"run {number}: {describe(estimated)}; measured {describe(measured)}", end="", flush=True)
        print(f", time off by {seconds:+.0%}, memory by {memory:+.0%}", flush=True)


def describe(one: dict[str, float]) -> str:
    return f"{one['seconds']:6.1f} s {one['memory_mb']:6.0f} MiB"


def grid(folder: Path, options: argparse.Namespace) -> None:
    prepare(folder, options.bert_base)
    names = [SAMPLE, "small-bert", *(["bert-base"] if options.bert_base else [])]
    errors = []
    print(f"{'base model':38} {'length':>6} {'batch':>5} {'estimate':>19} {'measured':>19} {'time':>6} {'memory':>6}")
    for name in names:
        for length in LENGTHS:
            for batch in BATCHES:
                errors.append(line(folder, name, length, batch, options.rows))
    for what, differences in zip(("time", "memory"), zip(*errors, strict=True), strict=True):
        print(
            f"{what}: off by {median(map(abs, differences)):.0%} in the median, {max(map(abs, differences)):.0%} at most"
        )


def line(folder: Path, name: str, length: int, batch: int, rows: int) -> tuple[float, float]:
    setup = {"folder": str(folder), "name": name, "length": length, "batch": batch, "rows": rows}
    estimated, measured = ask_worker("estimate", setup), ask_worker("train", setup)
    off = {key: estimated[key] / measured[key] - 1 for key in measured}
    sizes = f"{name:38} {length:6} {batch:5} {describe(estimated):>19} {describe(measured):>19}"
    print(f"{sizes} {off['seconds']:+6.0%} {off['memory_mb']:+6.0%}", flush=True)
    return off["seconds"], off["memory_mb"]


def ask_worker(worker: str, setup: dict[str, Any]) -> dict[str, float]:
    line = [sys.executable, __file__, "--worker", worker, "--setup", json.dumps(setup)]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def prepare(folder: Path, bert_base: bool) -> None:
    """Tweets without duplicates, some of them joined to long texts, and base models with random weights."""
    import polars as pl
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from engine import resolve_base_model
    from samples import tweets_en

    frame = tweets_en().unique("text", keep="first", maintain_order=True).select("text", "label")
    longer = pl.concat_str([pl.col("text").shift(n, fill_value="") for n in range(5)], separator=" ")
    text = pl.when(pl.int_range(pl.len()) % 3 == 0).then(longer).otherwise(pl.col("text"))
    frame.with_columns(text.alias("text")).write_parquet(folder / "texts.parquet")
    small = BertConfig(hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048)
    for name, config in {"small-bert": small, **({"bert-base": BertConfig()} if bert_base else {})}.items():
        BertForSequenceClassification(config).save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(resolve_base_model(SAMPLE)).save_pretrained(folder / name)


def estimate(setup: dict[str, Any]) -> dict[str, float]:
    from engine import warm_up
    from engine.training.estimate import estimate_run, measure_run

    warm_up()
    config, where = configured(setup)
    result = estimate_run(config, measure_run(config, **where), where["cache_dir"])
    return {"seconds": result.seconds, "memory_mb": result.memory_mb}


def run(setup: dict[str, Any]) -> dict[str, float]:
    from engine import Finished, train, warm_up

    warm_up()
    config, where = configured(setup)
    started, memory_mb = time.perf_counter(), 0.0
    for event in train(config, results=Path(setup["folder"]) / config.experiment_name, **where):
        if isinstance(event, Finished):
            memory_mb = event.metrics["system"]["peak_memory_mb"]
    return {"seconds": time.perf_counter() - started, "memory_mb": memory_mb}


def configured(setup: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from engine import RunConfig
    from engine.data.data_files import find_data_file

    folder = Path(setup["folder"])
    if "preset" in setup:
        config = RunConfig.from_yaml(Path(setup["preset"]).read_text(encoding="utf-8"))
        changes = config.concise() | {"experiment_name": setup["name"]}
        if setup["short"]:
            changes["training"] |= {"max_steps": 8}
            changes["data"] |= {"eval_samples": 32}
            changes["system"] = {"num_threads": 1}
        config = RunConfig.parse(changes)
        data_file = find_data_file(config.data.dataset_name, folder / "cache")
        return config, {"data_file": data_file, "cache_dir": folder / "cache"}
    config = {
        "experiment_name": f"{setup['name'].rpartition('/')[2]}-{setup['length']}-{setup['batch']}",
        "model": {"name": setup["name"]},
        "data": {"max_length": setup["length"], "train_samples": setup["rows"], "eval_samples": setup["rows"] // 4},
        "training": {"per_device_train_batch_size": setup["batch"], "num_train_epochs": 2},
    }
    where = {"data_file": folder / "texts.parquet", "base_models_dir": folder, "cache_dir": folder / "cache"}
    return RunConfig.parse(config), where


if __name__ == "__main__":
    main()
