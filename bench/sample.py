"""Train the sample language model on orders in free text, which become JSON, as somebody does who has just installed this.

    python bench/sample.py [--threads 2]

Prints the share of held-out orders that come out right (exact match on evaluation and test rows), of the base model and of the tuned one,
and the seconds of the whole run: conversion of the base model, training, all evaluations and answers, saving, loading again.
The cache folder is empty at first. Bar: below 5 %, at least 95 %, in less than 300 seconds on two cores.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRESET = ROOT / "config/language_models/orders.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "engine", str(PRESET), "--results", folder, "--cache", f"{folder}/cache"]
        environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        seconds = time.perf_counter() - started
        metrics = json.loads((Path(folder) / "orders/metrics.json").read_text())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"exact match: base model {metrics['baseline']['base_exact_match']:.1%}, tuned {metrics['eval']['exact_match']:.1%} "
        f"(test rows {metrics['test']['exact_match']:.1%}); {seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU seconds, "
        f"of which training {metrics['train']['runtime_s']:.0f} s"
    )


if __name__ == "__main__":
    main()
