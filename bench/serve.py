"""Serving several adapters over one base model, beside plain transformers pipelines, one per model.

    python bench/serve.py [--requests 200] [--callers 1 8] [--adapters 1 4 16]

Each contender answers in a process of its own, taking turns: the same adapters (all-linear, r 16, on the sample base model),
the same sample tweets, one text per request to a model drawn by chance, from so many callers at once. The pipelines' models are
merged, and computed one after the other behind a lock: on a CPU that is faster than at once. Prints requests per second,
latency, and what the process holds in memory beyond what it held before the first model.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CONTENDERS = {"pipeline": "pipeline per model", "engine": "Lorasite"}
LABELS = ("negative", "neutral", "positive")
Answer = Callable[[int, str], Any]


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(_measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        _make_adapters(Path(folder), max(options.adapters))
        for adapters in options.adapters:
            for callers in options.callers:
                found = {name: _spawn(options, name, adapters, callers) for name in CONTENDERS}
                for name, result in found.items():
                    print(_line(name, adapters, callers, result), flush=True)
                print(_ratio(found["engine"], found["pipeline"]), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def _make_adapters(folder: Path, number: int) -> None:
    from testing.adapters import make_adapter

    for seed in range(number):
        make_adapter(folder / str(seed), LABELS, seed, r=16, target_modules="all-linear")


def _spawn(options: argparse.Namespace, name: str, adapters: int, callers: int) -> dict[str, Any]:
    arguments = [sys.executable, __file__, "--worker", name, "--folder", options.folder]
    for key, value in {"adapters": adapters, "callers": callers}.items():
        arguments += [f"--{key}", str(value)]
    arguments += ["--requests", str(options.requests), "--batch-tokens", str(options.batch_tokens)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    import psutil
    import torch  # its own memory is no model's

    from samples import tweets_en

    torch.set_num_threads(len(psutil.Process().cpu_affinity() or [1]))
    texts = tweets_en()["text"].sample(options.requests, seed=1).to_list()
    folders = [Path(options.folder) / str(number) for number in range(options.adapters[0])]
    answer, before = {"pipeline": _pipelines, "engine": _engine}[options.worker](folders, options)
    for number in range(len(folders)):
        answer(number, "warm up")
    memory = _resident() - before
    drawn = random.Random(2)
    asked = [(drawn.randrange(len(folders)), text) for text in texts]
    latencies, seconds = _ask(answer, asked, options.callers[0])
    return {
        "requests_per_second": len(asked) / seconds,
        "p50": 1000 * statistics.median(latencies),
        "p95": 1000 * sorted(latencies)[int(0.95 * len(latencies))],
        "memory": memory,
    }


def _ask(answer: Answer, asked: list[tuple[int, str]], callers: int) -> tuple[list[float], float]:
    def timed(request: tuple[int, str]) -> float:
        started = time.perf_counter()
        answer(*request)
        return time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as threads:
        latencies = list(threads.map(timed, asked))
    return latencies, time.perf_counter() - started


def _engine(folders: list[Path], options: argparse.Namespace) -> tuple[Answer, float]:
    import engine.serve.shared_base  # noqa: F401  imported before memory is looked at
    from engine.serve.predictor import Predictor

    predictor, before = Predictor(batch_tokens=options.batch_tokens, patience=600), _resident()
    return lambda number, text: predictor.predict(folders[number], [text]), before


def _pipelines(folders: list[Path], _options: argparse.Namespace) -> tuple[Answer, float]:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from samples import base_model_path

    before, lock = _resident(), threading.Lock()

    def load(folder: Path) -> Any:
        base = AutoModelForSequenceClassification.from_pretrained(base_model_path(), num_labels=len(LABELS))
        merged = PeftModel.from_pretrained(base, folder).merge_and_unload().eval()
        return pipeline(
            "text-classification", model=merged, tokenizer=AutoTokenizer.from_pretrained(folder), top_k=None
        )

    pipelines = [load(folder) for folder in folders]

    def answer(number: int, text: str) -> Any:
        with lock:
            return pipelines[number](text, truncation=True, max_length=24)

    return answer, before


def _resident() -> float:
    """MiB that this process alone holds."""
    import gc

    import psutil

    gc.collect()
    return psutil.Process().memory_full_info().uss / 2**20


def _line(name: str, adapters: int, callers: int, found: dict[str, Any]) -> str:
    return (
        f"{CONTENDERS[name]:18} {adapters:2} adapters {callers:2} callers  {found['requests_per_second']:6.1f} requests/s  "
        f"p50 {found['p50']:6.1f} ms  p95 {found['p95']:6.1f} ms  {found['memory']:6,.0f} MiB"
    )


def _ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    faster = ours["requests_per_second"] / theirs["requests_per_second"]
    return f"{'':18} {faster:.2f} times the requests in {ours['memory'] / theirs['memory']:.2f} of the memory"


if __name__ == "__main__":
    main()
