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
from engine.task_types import METRICS, TaskType
from engine.tests.conftest import run, small
from engine.training.distributed import World
from testing.entity_texts import make_entity_frame
from testing.site import free_port

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


def launch(*command: str) -> subprocess.Popen[str]:
    """Start two processes of a Python program."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [*torchrun, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def start_shared(folder: Path, data: Path, bases: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(config().to_yaml())
    arguments = [str(folder / "run.yaml"), "--data", str(data), "--results", str(folder)]
    return launch("-m", "engine", *arguments, "--cache", str(folder / "cache"), "--base-models", str(bases))


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def shared(tweets: Path, bases: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("shared")
    return folder / "shared", ended(start_shared(folder, tweets, bases))


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


LABELS: dict[TaskType, dict[str, str]] = {
    "multi_label_classification": {"negative": '["bad"]', "neutral": "[]", "positive": '["good", "nice"]'},
    "regression": {"negative": "-1", "neutral": "0", "positive": "1.5"},
}
# One start of both processes for all runs: to import everything takes each of them longer than a run. torchrun's own store
# would still have the addresses of the run before.
RUN_ALL = """
import os, sys
from engine.__main__ import main
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
base_models, *runs = sys.argv[1:]
for run in runs:
    os.environ["MASTER_PORT"], folder = run.split(":")
    arguments = ["--data", f"{folder}/rows.parquet", "--results", folder, "--cache", f"{folder}/cache"]
    assert main([f"{folder}/run.yaml", *arguments, "--base-models", base_models]) == 0
"""


def config_of(task: TaskType) -> RunConfig:
    data: dict[str, Any] = {"train_samples": 33, "eval_samples": 15}
    training: dict[str, Any] = {"precision": "fp32", "learning_rate": 0.001, "eval_strategy": "no"}
    if task == "token_classification":
        data["max_length"] = 12  # some texts are several windows
        training["class_weights"] = "balanced"
    lora, model = {"lora_dropout": 0.0}, {"name": "still"}
    return small(experiment_name="shared", task=task, model=model, lora=lora, data=data, training=training)


def rows_of(task: TaskType, tweets: Path) -> pl.DataFrame:
    if task == "token_classification":
        return make_entity_frame(34, 15, 1, ["en"])
    return pl.read_parquet(tweets).with_columns(pl.col("label").replace_strict(LABELS[task]))


def test_two_processes_give_the_metrics_of_one_for_each_task_type(tweets, bases, tmp_path):
    tasks: list[TaskType] = [*LABELS, "token_classification"]
    folders = {task: tmp_path / task for task in tasks}
    for task, folder in folders.items():
        folder.mkdir()
        rows_of(task, tweets).write_parquet(folder / "rows.parquet")
        (folder / "run.yaml").write_text(config_of(task).to_yaml())
    (tmp_path / "run_all.py").write_text(RUN_ALL)
    ended(launch(str(tmp_path / "run_all.py"), str(bases), *(f"{free_port()}:{folder}" for folder in folders.values())))
    for task, folder in folders.items():
        run(config_of(task), folder / "rows.parquet", folder / "one", base_models_dir=bases)
        one, two = (json.loads((folder / name / "metrics.json").read_text()) for name in ("one", "shared"))
        for name in METRICS[task]:
            assert two["eval"][name] == pytest.approx(one["eval"][name], rel=1e-3), (task, name)
        losses = [[point["loss"] for point in metrics["history"] if "loss" in point] for metrics in (one, two)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-3), task
    # The last ones are those of entities.
    assert one["data"]["windows"] > 33
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
        process = start_shared(tmp_path, tweets, bases)
        step_above(process, results, newest(results) + number)
        os.kill(second(process.pid), sign)
        process.communicate(timeout=100)
        assert process.returncode != 0
    ended(start_shared(tmp_path, tweets, bases))
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
    outcomes = [line for line in ended(launch(str(tmp_path / "exchange.py"))).split("\n") if line.startswith("[")]
    assert [json.loads(line) for line in outcomes] == [[3.0, 4, True, [3.0, 4.0], "processes_differ"]] * 2


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
