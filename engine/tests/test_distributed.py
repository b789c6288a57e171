"""A run of two processes, started by torchrun, gives the result of one process and loses nothing either."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
import torch
from safetensors.numpy import load_file

from engine import RunConfig, devices
from engine.task_types import METRICS
from engine.tests.conftest import run, small
from engine.training.distributed import World
from testing.entity_texts import make_entity_frame

ADAPTER = "artifacts/final_model/adapter_model.safetensors"
pytestmark = [pytest.mark.process, pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has none")]


def config() -> RunConfig:
    """Twenty steps; the last of each epoch has one row, so one of two processes has none."""
    return small(
        experiment_name="shared",
        model={"name": "still"},
        lora={"lora_dropout": 0.0},
        data={"train_samples": 33, "eval_samples": 15},
        training={
            "num_train_epochs": 4,
            "learning_rate": 0.001,
            "class_weights": "balanced",
            "precision": "fp32",
            "save_strategy": "steps",
            "save_steps": 2,
        },
    )


def torchrun(
    folder: Path, data: Path, bases: Path, *more: str, run_config: RunConfig | None = None
) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text((run_config or config()).to_yaml())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *more]
    engine = ["-m", "engine", str(folder / "run.yaml"), "--data", str(data), "--results", str(folder)]
    command = [*launch, *engine, "--cache", str(folder / "cache"), "--base-models", str(bases)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def shared(tweets: Path, bases: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("shared")
    return folder / "shared", ended(torchrun(folder, tweets, bases))


def test_two_processes_end_in_the_adapter_and_the_metrics_of_one(shared, tweets, bases, tmp_path):
    results, _ = shared
    run(config(), tweets, tmp_path, base_models_dir=bases)
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, results))
    losses = [[point["loss"] for point in metrics["history"] if "loss" in point] for metrics in (one, two)]
    assert len(losses[0]) == 20 and losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert two["eval"]["loss"] == pytest.approx(one["eval"]["loss"], rel=1e-4)
    assert {name: two[name] for name in ("labels", "checkpoints")} == {
        name: one[name] for name in ("labels", "checkpoints")
    }
    assert two["eval"]["confusion_matrix"] == one["eval"]["confusion_matrix"]
    expected = load_file(tmp_path / ADAPTER)
    actual = load_file(results / ADAPTER)
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(actual[name], tensor, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("task", ["multi_label_classification", "regression"])
def test_two_processes_give_the_metrics_of_one_for_each_task_type(task, tweets, bases, tmp_path):
    labels = {
        "multi_label_classification": {"negative": '["bad"]', "neutral": "[]", "positive": '["good", "nice"]'},
        "regression": {"negative": "-1", "neutral": "0", "positive": "1.5"},
    }
    rows = pl.read_parquet(tweets).with_columns(pl.col("label").replace_strict(labels[task]))
    rows.write_parquet(tmp_path / "rows.parquet")
    run_config = small(
        experiment_name="shared",
        task=task,
        model={"name": "still"},
        lora={"lora_dropout": 0.0},
        data={"train_samples": 33, "eval_samples": 15},
        training={"precision": "fp32", "learning_rate": 0.001, "eval_strategy": "no"},
    )
    ended(torchrun(tmp_path / "two", tmp_path / "rows.parquet", bases, run_config=run_config))
    run(run_config, tmp_path / "rows.parquet", tmp_path / "one", base_models_dir=bases)
    folders = (tmp_path / "one", tmp_path / "two/shared")
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    for name in METRICS[task]:
        assert two["eval"][name] == pytest.approx(one["eval"][name], rel=1e-3), name
    losses = [[point["loss"] for point in metrics["history"] if "loss" in point] for metrics in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_two_processes_find_the_entities_that_one_finds(bases, tmp_path):
    make_entity_frame(34, 15, 1, ["en"]).write_parquet(tmp_path / "data.parquet")
    run_config = small(
        experiment_name="shared",
        task="token_classification",
        model={"name": "still"},
        lora={"lora_dropout": 0.0},
        data={"train_samples": 33, "eval_samples": 15, "max_length": 12},  # some texts are several windows
        training={"precision": "fp32", "class_weights": "balanced"},
    )
    ended(torchrun(tmp_path / "two", tmp_path / "data.parquet", bases, run_config=run_config))
    run(run_config, tmp_path / "data.parquet", tmp_path / "one", base_models_dir=bases)
    folders = (tmp_path / "one", tmp_path / "two/shared")
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    losses = [[point["loss"] for point in metrics["history"] if "loss" in point] for metrics in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and one["data"]["windows"] > 33
    assert two["eval"]["loss"] == pytest.approx(one["eval"]["loss"], rel=1e-3)
    assert {**two["eval"], "loss": 0} == {**one["eval"], "loss": 0}


def test_one_process_writes_and_speaks(shared):
    results, output = shared
    log = (results / "logs.txt").read_text()
    assert log.count("Stage: done.") == log.count("Step 20/20") == 1 and "2 × cpu" in log
    assert output.count("Everything is in") == output.count("evaluation accuracy") == 1
    assert not list(results.rglob(".draft-*"))


def test_processes_that_are_killed_or_asked_to_stop_resume_to_the_same_bytes(shared, tweets, bases, tmp_path):
    expected, _ = shared
    results = tmp_path / "shared"
    for number, sign in enumerate((signal.SIGKILL, signal.SIGTERM)):
        process = torchrun(tmp_path, tweets, bases)
        step_above(process, results, newest(results) + number)
        os.kill(second(process.pid), sign)
        process.communicate(timeout=100)
        assert process.returncode != 0
    ended(torchrun(tmp_path, tweets, bases))
    log = (results / "logs.txt").read_text()
    assert log.count("Stage: preparing.") == 3 and log.count("The run was stopped at step") == 1
    assert (results / ADAPTER).read_bytes() == (expected / ADAPTER).read_bytes()


def newest(results: Path) -> int:
    """Return the step of the newest checkpoint, 0 without any."""
    return max((int(path.name[11:]) for path in results.glob("artifacts/checkpoints/checkpoint-*")), default=0)


def step_above(process: subprocess.Popen[str], results: Path, step: int) -> None:
    """Wait for the checkpoint of a later step."""
    ends = time.monotonic() + 120
    while newest(results) <= step:
        if time.monotonic() > ends or process.poll() is not None:
            process.terminate()
            pytest.fail(process.communicate(timeout=60)[0][-3000:])
        time.sleep(0.01)


def second(launcher: int) -> int:
    """Return the process id of rank 1."""
    children = psutil.Process(launcher).children()
    return next(child.pid for child in children if child.environ().get("RANK") == "1")


EXCHANGE = """
import json, sys, torch
from engine.training.distributed import ProcessesDifferError, World
world, cpu = World.from_environment(), torch.device("cpu")
world.join(cpu)
weight = torch.nn.Parameter(torch.zeros(2))
weight.grad = None if world.is_main_process else torch.tensor([3.0, 4.0])  # the first had no rows
exchange = world.exchange_step([weight], loss=1.0 + world.rank, micro_batch=8 >> world.rank, stop=not world.is_main_process)
world.refuse_differences("same", [weight], cpu)
try:
    world.refuse_differences(f"checkpoint {world.rank}", [weight], cpu)
    outcome = "agreed"
except ProcessesDifferError as error:
    outcome = error.code
world.leave()
sys.stdout.write(json.dumps([*exchange, weight.grad.tolist(), outcome]) + chr(10))
"""


def test_smallest_micro_batch_and_stop_requests_reach_all_and_different_starts_are_refused(tmp_path):
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(tmp_path / "exchange.py")]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.split("\n") if line] == [
        [3.0, 4, True, [3.0, 4.0], "processes_differ"]
    ] * 2


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(devices.DeviceUnavailableError, match="more processes than this machine has GPUs"):
        devices.device_of_process(torch.device("cuda"), World(63, 64, 63))


def test_cores_are_shared_out_between_the_processes_of_a_machine():
    config = RunConfig.parse({"training": {"device": "cpu"}})
    assert devices.choose(config, World(0, 2, 0)).threads == max(1, devices.usable_cores() // 2)


def test_run_takes_the_threads_of_openmp_unless_torchrun_has_set_them(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert devices.choose(RunConfig.parse({"training": {"device": "cpu"}})).threads == 3
    assert devices.default_threads(World(0, 64, 0)) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert devices.default_threads(devices.ALONE) == devices.usable_cores()


def test_dropout_differs_between_processes_and_depends_on_the_step_alone():
    def drawn(rank: int, step: int) -> list[Any]:
        World(rank, 2, rank).seed_dropout(42, step)
        return torch.rand(4).tolist()

    assert drawn(0, 7) == drawn(0, 7)
    assert len({tuple(drawn(rank, step)) for rank in (0, 1) for step in (7, 8)}) == 4


def test_rows_of_a_step_are_shared_out_once_each():
    rows = np.arange(9)
    shares = [World(rank, 4, rank).share_of(rows) for rank in range(4)]
    assert sorted(np.concatenate(shares).tolist()) == rows.tolist()
