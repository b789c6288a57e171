"""Running out of memory for real: a process whose memory is limited by the operating system."""

import json
import os
import random
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.memory_limits import free_bytes

PROCESS = """
import json, resource, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from engine import EngineError, Notice, RunConfig, StepDone, train, warm_up
from engine.memory_limits import used_data_bytes
config, data, results, mebibytes = RunConfig.parse(json.loads(sys.argv[1])), *map(Path, sys.argv[2:4]), int(sys.argv[4])
warm_up()
if mebibytes:
    resource.setrlimit(resource.RLIMIT_DATA, (used_data_bytes() + mebibytes * 2**20,) * 2)
try:
    for event in train(config, data_file=data, results=results):
        if isinstance(event, StepDone):
            print(json.dumps(["loss", event.loss]))
        elif isinstance(event, Notice):
            print(json.dumps([event.code, event.message]))
except EngineError as error:
    print(json.dumps([error.code, str(error)]))
"""
ESTIMATE = """
import ctypes, json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
from engine import RunConfig
from engine.training.run import Run

def held(name):
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1]) * 1024

def step(task, rows, length):
    task.forward(torch.randint(5, 5000, (rows, length)), torch.ones(rows, length, dtype=torch.long)).sum().backward()

libc = ctypes.CDLL(None)
libc.mallopt(-3, 131072)
for number, config in enumerate(json.loads(sys.argv[1])):
    run = Run(RunConfig.parse(config), Path(sys.argv[2]), Path(sys.argv[3]) / str(number))
    task = run.prepare().task
    for rows, length in ((16, 64), (4, 152)):
        step(task, rows, length)
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        before = held("VmRSS")
        step(task, rows, length)
        case = [config["training"], config["lora"], rows, length]
        print(json.dumps([*case, task.estimate_step_bytes(rows, length), held("VmHWM") - before]))
"""
CONFIG = {
    "lora": {"target_modules": "all-linear"},
    "data": {"max_length": 160, "eval_samples": 16},
    "training": {"per_device_train_batch_size": 48, "max_steps": 2, "eval_strategy": "no"},
    "system": {"baseline": False},
}

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")]


@pytest.fixture(scope="module")
def long_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of about 150 tokens."""
    chance, syllables = random.Random(1), list(map("".join, product("bdfklmnprst", "aeiou")))
    words = list(map("".join, product(syllables, syllables)))  # of few words all texts would be near-duplicates
    rows = {"text": [" ".join(chance.choices(words, k=80)) for _ in range(112)], "label": ["a", "b"] * 56}
    path = tmp_path_factory.mktemp("long") / "long.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


def trained(data: Path, results: Path, mebibytes: int) -> list[Any]:
    arguments = [json.dumps(CONFIG), str(data), str(results), str(mebibytes)]
    done = subprocess.run([sys.executable, "-c", PROCESS, *arguments], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_run_under_a_memory_limit_takes_smaller_micro_batches_and_ends_with_the_same_losses(long_texts, tmp_path):
    plenty = trained(long_texts, tmp_path / "plenty", 0)
    scarce = trained(long_texts, tmp_path / "scarce", 600)
    messages = [message for code, message in scarce if code == "out_of_memory"]
    assert "out_of_memory" not in dict(plenty) and "micro-batches of" in messages[0]
    losses = [[value for name, value in lines if name == "loss"] for lines in (plenty, scarce)]
    assert len(losses[0]) == 2 and losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert (tmp_path / "scarce/artifacts/final_model/adapter_model.safetensors").is_file()


def test_base_model_that_does_not_fit_ends_in_a_sentence(long_texts, tmp_path):
    (code, message), *more = trained(long_texts, tmp_path, 60)
    assert code == "out_of_memory" and "smaller base model" in message and not more


ALL_LAYERS, FEW_LAYERS, DORA = {"target_modules": "all-linear"}, {"r": 8}, {"use_dora": True}


ADAPTERS = {
    "fp32": [ALL_LAYERS, FEW_LAYERS, DORA],
    "bf16": [ALL_LAYERS, DORA],
    "int8": [ALL_LAYERS, FEW_LAYERS],
}


def test_memory_of_a_step_is_estimated_within_a_quarter(long_texts, tmp_path):
    """In one process, because to start one takes longer than all steps."""
    configs = [
        CONFIG | {"lora": lora, "training": {"precision": precision}}
        for precision, adapters in ADAPTERS.items()
        for lora in adapters
    ]
    arguments = [json.dumps(configs), str(long_texts), str(tmp_path)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that wait for each other take time, and no memory
    done = subprocess.run(
        [sys.executable, "-c", ESTIMATE, *arguments], env=alone, capture_output=True, text=True, check=True
    )
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(measured) == 2 * len(configs)
    for *case, estimated, actual in measured:
        assert estimated == pytest.approx(actual, rel=0.25), (estimated / actual, case)


def test_free_memory_is_a_number_of_bytes_below_the_machines():
    import psutil

    assert 2**20 < free_bytes() <= psutil.virtual_memory().total
