"""Presets against the best of a small grid of the Hugging Face Trainer with PEFT, on four data sets made from packaged data.

    python bench/quality.py                        all that is not measured yet, then the table
    python bench/quality.py --sets tweets          one data set
    python bench/quality.py --minutes 9            start nothing more after nine minutes; the next call goes on from there

Everybody has the same base model (MiniLM-L6), rows and seeds; the grid also has the batch and the passes of "balanced". Each
point of the grid is trained with the first seed, the best one with all of them. Points are compared on the evaluation rows, and
a run of ours chooses its checkpoint there; the scores that count are those of the test rows, which chose nothing. What is
measured is kept in a file, so that nothing is computed twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.quality_data import MAKERS
from engine.presets import preset_settings

SEEDS = (0, 1, 2)
GOALS = ("quick", "balanced", "best")
FINALISTS = 1  # points of the grid that are trained with all seeds
TARGETS = {"query, value, r 8": (8, ["query", "value"]), "all-linear, r 16": (16, "all-linear")}
SCORES = dict[str, float]  # of a run: eval, test and seconds


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows per split, and what a model learns from them, by which metric it is judged."""

    task: str
    metric: str
    sizes: dict[str, int]
    rates: tuple[float, ...]  # of the grid
    pairs: bool = False


SIZES = {"train": 400, "eval": 150, "test": 400}
FEWER = {"train": 300, "eval": 100, "test": 300}
SETS = {
    "tweets": DataSet("sequence_classification", "accuracy", SIZES, (5e-4, 2e-3)),
    "topics": DataSet("multi_label_classification", "micro_f1", SIZES, (5e-4, 2e-3)),
    "comparisons": DataSet("sequence_classification", "accuracy", FEWER, (5e-4, 2e-3), pairs=True),
    "entities": DataSet("token_classification", "entity_f1", FEWER, (1e-3, 3e-3)),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One training: a preset of Lorasite, or a point of the Trainer's grid."""

    name: str
    seed: int
    config: dict[str, Any]  # of the engine; the Trainer gets the same values
    by_trainer: bool

    @property
    def key(self) -> str:
        """Return a hash of all that the result depends on, except the code and the machine."""
        settings = {section: values for section, values in self.config.items() if section != "system"}
        content = json.dumps([self.name, self.seed, self.by_trainer, settings], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def main() -> None:
    options = parse_options()
    if options.worker:
        work(options.worker, Path(options.folder))
        return
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(name, Path(folder), options)
            bench.measure()
            bench.print_table()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="data sets")
    parser.add_argument("--minutes", type=float, default=1e9, help="start nothing more after so many minutes")
    parser.add_argument("--threads", type=int, help="threads of torch; default: all cores")
    parser.add_argument("--presets", nargs="+", choices=GOALS, default=["balanced", "best"], help="presets to measure")
    parser.add_argument("--times", type=int, default=1, help="so many times the rows: slower, and less left to chance")
    parser.add_argument("--no-grid", dest="grid", action="store_false", help="the presets alone")
    parser.add_argument("--results", type=Path, default=ROOT / "var/quality", help="folder of what is measured")
    parser.add_argument("--worker", choices=SETS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


class Bench:
    """The measurements on one data set, and the process that makes them."""

    def __init__(self, name: str, folder: Path, options: argparse.Namespace) -> None:
        self.name = name
        self.data = SETS[name]
        self.sizes = {split: rows * options.times for split, rows in self.data.sizes.items()}
        self.folder = folder
        self.options = options
        self.file = options.results / f"{name}-{options.times}.json"
        self.deadline = time.monotonic() + 60 * options.minutes
        self.results: dict[str, SCORES] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.jobs = [self.preset_job(goal, seed) for seed in SEEDS for goal in options.presets]
        self.worker: subprocess.Popen[str] | None = None

    def measure(self) -> None:
        """Run what is not measured yet: the presets, all points of the grid once, and the best of them again."""
        for job in self.jobs:
            self.run(job)
        if self.options.grid:
            first = self.grid_jobs(SEEDS[0])
            self.jobs += first
            for job in first:
                self.run(job)
            measured = [job for job in first if job.key in self.results]
            best = sorted(measured, key=lambda job: -self.results[job.key]["eval"])[:FINALISTS]
            again = [
                job for seed in SEEDS[1:] for job in self.grid_jobs(seed) if job.name in {each.name for each in best}
            ]
            self.jobs += again
            for job in again:
                self.run(job)
        if self.worker:
            self.worker.communicate()

    def preset_job(self, goal: str, seed: int) -> Job:
        settings = preset_settings(goal, self.data.task, self.sizes["train"])
        return Job(f"preset {goal}", seed, self.config(settings, seed), by_trainer=False)

    def grid_jobs(self, seed: int) -> list[Job]:
        """Return all points of the grid. Batches and passes are those of the preset, so that nobody trains for longer."""
        jobs = []
        same = preset_settings("balanced", self.data.task, self.sizes["train"])["training"]
        for targets, (rank, modules) in TARGETS.items():
            for rate in self.data.rates:
                settings = {
                    "lora": {"r": rank, "lora_alpha": 2 * rank, "target_modules": modules},
                    "training": same | {"learning_rate": rate},
                }
                jobs.append(Job(f"Trainer, {targets}, {rate:g}", seed, self.config(settings, seed), by_trainer=True))
        return jobs

    def config(self, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        """Return the configuration of a run with these settings."""
        columns = {"text_pair_column": "text_pair"} if self.data.pairs else {}
        own = {"dataset_name": self.name, "max_length": 128, **columns}
        return {
            "task": self.data.task,
            **settings,
            "data": settings.get("data", {}) | own,
            "training": settings["training"] | {"seed": seed},
            "system": {"baseline": False, "num_threads": self.options.threads},
        }

    def run(self, job: Job) -> None:
        """Let the worker train, and keep its scores, unless they are there or the time is over."""
        if job.key in self.results or time.monotonic() > self.deadline:
            return
        self.worker = self.worker or self.start_worker()
        print(json.dumps(asdict(job)), file=self.worker.stdin, flush=True)
        line = self.worker.stdout.readline()
        if not line:
            sys.exit(f"{job.name} on {self.name} failed; its error is above.")
        scores = self.results[job.key] = json.loads(line)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.results, indent=1))
        print(
            f"{self.name}: {job.name}, seed {job.seed}: {scores['test']:.4f} in {scores['seconds']:.0f} s", flush=True
        )

    def start_worker(self) -> subprocess.Popen[str]:
        MAKERS[self.name](self.sizes).write_parquet(self.folder / "rows.parquet")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
        if self.options.threads:
            environment["OMP_NUM_THREADS"] = str(self.options.threads)
        command = [sys.executable, __file__, "--worker", self.name, "--folder", str(self.folder)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def print_table(self) -> None:
        """Print mean and spread of each contender, and how far the presets are from the best point of the grid."""
        runs_of: dict[str, list[SCORES]] = {}
        for job in self.jobs:
            if job.key in self.results:
                runs_of.setdefault(job.name, []).append(self.results[job.key])
        rows = ", ".join(f"{count} {split}" for split, count in self.sizes.items())
        print(f"\n{self.name} ({self.data.task}), {self.data.metric} in %; rows: {rows}")
        for contender, runs in runs_of.items():
            scores = [100 * run["test"] for run in runs]
            spread = f"± {stdev(scores):.2f}" if len(scores) > 1 else ""
            seconds = fmean(run["seconds"] for run in runs)
            print(f"  {contender:34} {fmean(scores):6.2f} {spread:7} {len(scores)} seeds, {seconds:5.1f} s each")
        finalists = [name for name, runs in runs_of.items() if name.startswith("Trainer") and len(runs) == len(SEEDS)]
        if not finalists:
            return
        best = max(finalists, key=lambda name: fmean(run["eval"] for run in runs_of[name]))
        print(f"  best of the grid on the evaluation rows: {best}")
        for goal in self.options.presets:
            gain = fmean(run["test"] for run in runs_of[f"preset {goal}"]) - fmean(run["test"] for run in runs_of[best])
            print(f"  {goal}: {100 * gain:+.2f} points")


def work(name: str, folder: Path) -> None:
    """Train the jobs that come in on standard input, a line each, and print their results."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not end up among the answers
    peer = None
    for line in sys.stdin:
        job = Job(**json.loads(line))
        started = time.perf_counter()
        if job.by_trainer:
            peer = peer or Peer(name, job, folder)
            result = peer.train(job)
        else:
            result = train_preset(name, job, folder)
        print(json.dumps(result | {"seconds": time.perf_counter() - started}), file=answers, flush=True)


def train_preset(name: str, job: Job, folder: Path) -> dict[str, float]:
    """Train as the platform does; return the scores of the best checkpoint."""
    from engine import Finished, RunConfig, train

    metric = SETS[name].metric
    config = RunConfig.parse(job.config)
    with tempfile.TemporaryDirectory(dir=folder) as results:
        for event in train(
            config, data_file=folder / "rows.parquet", results=Path(results), cache_dir=folder / "tokens"
        ):
            if isinstance(event, Finished):
                metrics = event.metrics
    return {split: metrics[split][metric] for split in ("eval", "test")}


class Peer:
    """The Trainer with PEFT. Rows, tokens and scores are the engine's, so that only the training differs."""

    def __init__(self, name: str, job: Job, folder: Path) -> None:
        from engine import RunConfig, devices, resolve_base_model, tasks
        from engine.training.distributed import World

        self.metric = SETS[name].metric
        config = RunConfig.parse(job.config | {"training": job.config["training"] | {"precision": "fp32"}})
        self.base = resolve_base_model(config.model.name)
        self.folder = folder
        plan = devices.choose(config, World(0, 1, 0))
        self.task = tasks.create(config, plan, self.base, folder / "rows.parquet", folder / "tokens", 0)
        self.examples = list(self.make_examples())

    def make_examples(self) -> Iterator[dict[str, Any]]:
        """Yield the training rows as the Trainer takes them. Tokens that do not count have the label -100."""
        import numpy as np

        task = self.task
        tokens = task.train_tokens
        for row in range(len(tokens.lengths)):
            part = slice(tokens.offsets[row], tokens.offsets[row + 1])
            example = {"input_ids": tokens.ids[part].tolist()}
            if tokens.types is not None:
                example["token_type_ids"] = tokens.types[part].tolist()
            labels = task.training_labels(np.array([row])).numpy()
            if task.head == "token":
                of_tokens = np.full(len(tokens.ids), -100)
                of_tokens[tokens.counted[tokens.counted_of(np.array([row]))]] = labels
                example["labels"] = of_tokens[part].tolist()
            else:
                example["labels"] = labels[0].tolist()
            yield example

    def train(self, job: Job) -> dict[str, float]:
        """Train a point of the grid; return the scores of the last step."""
        from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding, Trainer, TrainingArguments

        training = job.config["training"]
        model = self.build_model(job)
        collator = DataCollatorForTokenClassification if self.task.head == "token" else DataCollatorWithPadding
        with tempfile.TemporaryDirectory(dir=self.folder) as output:
            arguments = TrainingArguments(
                output,
                learning_rate=training["learning_rate"],
                num_train_epochs=training["num_train_epochs"],
                per_device_train_batch_size=training["per_device_train_batch_size"],
                warmup_steps=0.06,
                train_sampling_strategy="group_by_length",
                seed=job.seed,
                save_strategy="no",
                report_to=[],
                logging_steps=10_000,
                disable_tqdm=True,
            )
            trainer = Trainer(
                model, arguments, train_dataset=self.examples, data_collator=collator(self.task.tokenizer)
            )
            trainer.train()
        return {"eval": self.score(model, "eval"), "test": self.score(model, "test")}

    def build_model(self, job: Job) -> Any:
        """Return the base model with a new head and a LoRA adapter."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, set_seed

        set_seed(job.seed)
        is_tokens = self.task.head == "token"
        classifier = AutoModelForTokenClassification if is_tokens else AutoModelForSequenceClassification
        several = {"problem_type": job.config["task"]} if job.config["task"].startswith("multi_label") else {}
        model = classifier.from_pretrained(self.base, num_labels=len(self.task.output_names), **several)
        lora = job.config["lora"]
        adapter = LoraConfig(
            task_type="TOKEN_CLS" if is_tokens else "SEQ_CLS",
            r=lora["r"],
            lora_alpha=lora["lora_alpha"],
            target_modules=lora["target_modules"],
            exclude_modules=["classifier"] if lora["target_modules"] == "all-linear" else None,
        )
        return get_peft_model(model, adapter)

    def score(self, model: Any, name: str) -> float:
        """Return the metric of a split, by the engine's own function."""
        import numpy as np
        import torch

        from engine.data.batches import batches_by_length
        from engine.models.forward import plain_forward

        task = self.task
        tokens = {"eval": task.eval_tokens, "test": task.test_tokens}[name]
        split = {"eval": task.rows.eval, "test": task.rows.test}[name]
        model.eval()
        task.forward = plain_forward(model, task.max_length)
        logits = np.zeros((task.output_count(tokens), len(task.output_names)), dtype=np.float32)
        with torch.inference_mode():
            for rows in batches_by_length(tokens.lengths, 64):
                logits[task.output_rows(tokens, rows)] = task.logits(tokens, rows).numpy()
        return float(task.score(logits, split)[self.metric])


if __name__ == "__main__":
    main()
