"""Speed on a machine that others use too, with OpenMP's threads always spinning (libgomp's default) and as this engine has it.

    python bench/contention.py [--rounds 2] [--seconds 8]

Training steps of the sample base model alone, beside one process that computes without a pause, and beside a second run;
single predictions on an idle machine and beside a training. Both settings take turns; each run and the
predictions are processes of their own. Prints medians and the ratios with their bars, and how much of the cores programs
took that are not part of the bench: with more than a little, measure again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SETTINGS = {"spinning": {"GOMP_SPINCOUNT": "300000"}, "watching": {}}  # the first is libgomp's default
WARM_UP = 5  # steps or predictions that do not count
START_LIMIT = 180.0  # seconds
PAUSE = 0.05  # seconds between two predictions
LABELS = ("negative", "neutral", "positive")
BUSY = [sys.executable, "-c", "while True: pass"]
BARS = {"busy": 0.62, "two runs": 0.45, "predictions": 0.6}  # of the speed alone
LATENCY_BAR = 3.0  # times the 95th percentile of an idle machine
Numbers = dict[str, float]


class Worker:
    """A process that prints a line for each step or prediction: when it ended, and its tokens or its milliseconds."""

    def __init__(self, kind: str, setting: str, folder: str) -> None:
        environment = os.environ | SETTINGS[setting]
        environment |= {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", kind, "--folder", folder],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[tuple[float, float]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            at, number = json.loads(line)
            self.lines.append((at, number))

    def warm_up(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while len(self.lines) < WARM_UP:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("A process of the bench did not start; its errors are above.")
            time.sleep(0.05)

    def per_second(self, since: float, until: float) -> float:
        """Return tokens/s between two times, from the end of one step to the end of another."""
        steps = [line for line in self.lines if since <= line[0] <= until]
        return sum(tokens for _, tokens in steps[1:]) / max(1e-9, steps[-1][0] - steps[0][0]) if steps else 0.0

    def percentile(self, since: float, until: float, share: float = 0.95) -> float:
        """Return the 95th percentile of milliseconds between two times."""
        times = sorted(ms for at, ms in self.lines if since <= at <= until)
        return times[int(share * len(times))]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement")
    parser.add_argument("--worker", choices=["train", "predict", "prepare"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        {"train": train_steps, "predict": predict_texts, "prepare": prepare}[options.worker](Path(options.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--worker", "prepare", "--folder", folder], cwd=ROOT, check=True)
        rounds: dict[str, list[Numbers]] = {setting: [] for setting in SETTINGS}
        for number in range(options.rounds):
            for setting in SETTINGS:
                rounds[setting].append(measure(setting, folder, options.seconds))
                line = "  ".join(f"{name} {value:,.2f}" for name, value in rounds[setting][-1].items())
                print(f"round {number + 1} {setting}: {line}", flush=True)
        print_summary(rounds)


def measure(setting: str, folder: str, seconds: float) -> Numbers:
    """Return tokens/s and milliseconds in each situation, and the cores that other programs took meanwhile."""

    def window() -> tuple[float, float]:
        since = time.monotonic()
        time.sleep(seconds)
        return since, time.monotonic()

    numbers: Numbers = {}
    predictions = Worker("predict", setting, folder)
    predictions.warm_up()
    numbers["p95 idle"] = predictions.percentile(*window())
    predictions.stop()

    run = Worker("train", setting, folder)
    run.warm_up()
    before = processor_seconds(run)
    numbers["alone"] = run.per_second(*window())
    others = (processor_seconds(run) - before) / seconds

    busy = subprocess.Popen(BUSY)
    time.sleep(2)
    numbers["busy"] = run.per_second(*window())
    busy.kill()
    busy.wait()

    predictions = Worker("predict", setting, folder)
    predictions.warm_up()
    since, until = window()
    numbers["predictions"] = run.per_second(since, until)
    numbers["p95 beside a run"] = predictions.percentile(since, until)
    predictions.stop()

    second = Worker("train", setting, folder)
    second.warm_up()
    since, until = window()
    numbers["two runs"] = min(run.per_second(since, until), second.per_second(since, until))
    second.stop()
    run.stop()
    numbers["other cores"] = others
    return numbers


def processor_seconds(run: Worker) -> float:
    """Return the seconds that all cores have worked so far, for anything but this run."""
    machine = psutil.cpu_times()
    own = psutil.Process(run.process.pid).cpu_times()
    return machine.user + machine.nice + machine.system - own.user - own.system


def print_summary(rounds: dict[str, list[Numbers]]) -> None:
    medians = {
        setting: {name: median(numbers[name] for numbers in measured) for name in measured[0]}
        for setting, measured in rounds.items()
    }
    default = medians["spinning"]["alone"]
    for setting, numbers in medians.items():
        print(
            f"\n{setting}: {numbers['alone']:,.0f} tokens/s alone, {numbers['alone'] / default:.2f} of spinning alone"
        )
        for name, bar in BARS.items():
            share = numbers[name] / numbers["alone"]
            print(f"  beside {name}: {numbers[name]:,.0f} tokens/s, {share:.2f} of alone (bar: {bar})")
        slower = numbers["p95 beside a run"] / numbers["p95 idle"]
        print(
            f"  predictions: p95 {numbers['p95 idle']:.1f} ms idle, {numbers['p95 beside a run']:.1f} ms beside a run, "
            f"{slower:.1f} times (bar: {LATENCY_BAR:.0f})"
        )
        print(f"  other programs took {numbers['other cores']:.2f} cores beside the run alone")


def prepare(folder: Path) -> None:
    """Write the rows and an adapter to predict with."""
    from samples import tweets_en
    from testing.adapters import make_adapter

    tweets_en().select("text", "label").write_parquet(folder / "tweets.parquet")
    make_adapter(folder / "adapter", LABELS, 0, r=16, target_modules="all-linear")


def train_steps(folder: Path) -> None:
    """Train until killed, and print when each step ended and its tokens."""
    from engine import RunConfig, StepDone, train

    config = RunConfig.from_yaml((ROOT / "config/default.yaml").read_text(encoding="utf-8")).model_dump()
    config["data"] |= {"train_samples": 3_000, "eval_samples": 100}
    config["training"] |= {"max_steps": 1_000_000, "eval_strategy": "no", "save_strategy": "no"}
    results = Path(tempfile.mkdtemp(dir=folder))
    for event in train(RunConfig.parse(config), data_file=folder / "tweets.parquet", results=results):
        if isinstance(event, StepDone):
            print(json.dumps([time.monotonic(), event.tokens]), flush=True)


def predict_texts(folder: Path) -> None:
    """Predict one text after another until killed, and print when each answer came and its milliseconds."""
    from engine.serve.predictor import Predictor
    from samples import tweets_en

    predictor = Predictor(batch_tokens=1024, patience=600)
    texts = tweets_en()["text"].to_list()
    for number in range(1_000_000):
        started = time.monotonic()
        predictor.predict(folder / "adapter", [texts[number % len(texts)]])
        ended = time.monotonic()
        print(json.dumps([ended, 1000 * (ended - started)]), flush=True)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
