"""One process of a run: prepares, checks, or times one contender. Prints a line of JSON for each row of a table.

The process is its own so that its memory and its start are those of one contender alone.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.gpu.settings import CHECKED, FULL, SMALL, Settings

MARK = "row: "  # of lines that are rows; libraries print too


def main() -> None:
    """Read what to do from the only argument, do it and print its rows."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    task = json.loads(sys.argv[1])
    settings = SMALL if task["small"] else FULL
    if settings.threads:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # before torch is imported
    for row in WORK[task["work"]](task, settings):
        print(MARK + json.dumps(row), flush=True)


def prepare(task: dict[str, Any], settings: Settings) -> Iterator[dict[str, Any]]:
    """Write the base models, and tell what the machine is and what its matrix products reach."""
    import platform

    import peft
    import torch
    import transformers

    from bench.gpu.flops import measure_product, peak_flops
    from bench.gpu.workload import make_base_model
    from engine.devices import cpu_has_bf16, usable_cores

    on_gpu = torch.cuda.is_available() if task["device"] == "auto" else task["device"] == "cuda"
    device = "cuda" if on_gpu else "cpu"
    if on_gpu:
        name = torch.cuda.get_device_name(0)
    else:
        name = f"CPU, {usable_cores()} cores"
        torch.set_num_threads(settings.threads or usable_cores())
    dtype = torch.bfloat16 if on_gpu or cpu_has_bf16() else torch.float32
    measured = measure_product(device, dtype, 8192 if on_gpu else 512)
    peak, source = peak_flops(name if on_gpu else "", measured)
    for shape in settings.shapes:
        make_base_model(shape, Path(task["folder"]) / shape.name, device)
    for shape in CHECKED:
        make_base_model(shape, Path(task["folder"]) / shape.name, device, dropout=0.0)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    versions += f", transformers {transformers.__version__}, PEFT {peft.__version__}"
    yield {
        "device": device, "name": name, "versions": versions, "peak": peak, "peak_source": source, "measured": measured,
        "dtype": str(dtype).removeprefix("torch."),
    }  # fmt: skip


def check(task: dict[str, Any], settings: Settings) -> Iterator[dict[str, Any]]:
    """Make the checks."""
    from bench.gpu.checks import Bench, run_checks

    yield from run_checks(Bench(settings, task["device"], Path(task["folder"])))


def train(task: dict[str, Any], settings: Settings) -> Iterator[dict[str, Any]]:
    """Time one contender with one setting."""
    from bench.gpu.training import CONTENDERS

    setting = settings.training[task["setting"]]
    yield CONTENDERS[task["contender"]](setting, settings, task["device"], Path(task["folder"]))


def serve(task: dict[str, Any], settings: Settings) -> Iterator[dict[str, Any]]:
    """Time serving."""
    from bench.gpu.serving import time_serving

    yield from time_serving(settings, task["device"], Path(task["folder"]))


WORK = {"prepare": prepare, "check": check, "train": train, "serve": serve}

if __name__ == "__main__":
    main()
