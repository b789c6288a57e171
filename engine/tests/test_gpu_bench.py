"""The GPU bench runs on a CPU with small sizes, so that it works on the day on which there is a GPU."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bench.gpu import wheels
from bench.gpu.checks import Bench, all_checks
from bench.gpu.processes import ROOT, WorkerError, rows_of
from bench.gpu.serving import time_serving
from bench.gpu.settings import CHECKED, SMALL
from bench.gpu.training import CONTENDERS
from bench.gpu.workload import make_base_model, make_rows

QUICK = replace(SMALL, seconds=0.1, serving=SMALL.serving[:2])
TASK = {"device": "cpu", "small": True, "folder": "none"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def random_bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random-bases")
    for shape in SMALL.shapes:
        make_base_model(shape, folder / shape.name, "cpu")
    make_base_model(CHECKED[0], folder / CHECKED[0].name, "cpu", dropout=0.0)
    return folder


@pytest.mark.parametrize("name", ["fp32 equals the CPU, BERT", "serving equals the CPU"])
def test_check_is_good_on_a_cpu_that_computes_as_a_gpu_does(random_bases, name):
    outcome = dict(all_checks())[name](Bench(QUICK, "cpu", random_bases))
    assert outcome.good, outcome.measured


def test_both_contenders_train_the_same_adapter_on_texts_of_the_wanted_length(random_bases):
    setting = QUICK.training[0]
    rows = [work(setting, QUICK, "cpu", random_bases) for work in CONTENDERS.values()]
    assert len({row["trained"] for row in rows}) == len({row["flops_per_token"] for row in rows}) == 1
    assert all(row["tokens_per_second"] > 0 and row["first_step_s"] > 0 for row in rows)
    texts = make_rows(setting.shape, 32, 2000, 0.4).train.texts
    assert sum(text.count(" ") + 3 for text in texts) / len(texts) == pytest.approx(32, rel=0.05)


def test_serving_is_timed_for_each_number_of_adapters(random_bases):
    rows = list(time_serving(QUICK, "cpu", random_bases))
    assert [(row["adapters"], row["callers"]) for row in rows] == [(1, 1), (4, 4)]
    assert all(row["requests_per_second"] > 0 and row["p95_ms"] >= row["p50_ms"] for row in rows)


@pytest.mark.process
def test_command_prepares_and_writes_what_it_prints(tmp_path):
    command = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--small", "--parts"]
    options = ["--out", str(tmp_path), "--wheels", str(tmp_path / "none")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text()
    assert "(small sizes)" in done.stdout and "nothing failed" in done.stdout
    assert (tmp_path / "results.md").read_text() == done.stdout
    assert json.loads((tmp_path / "results.json").read_text())["machine"]["peak"] > 0


@pytest.mark.process
def test_worker_that_fails_or_takes_too_long_is_an_error_with_its_reason(tmp_path):
    with pytest.raises(WorkerError, match="KeyError: 'nothing'"):
        list(rows_of(TASK | {"work": "nothing"}, 60, tmp_path / "log.txt", []))
    with pytest.raises(WorkerError, match="not finished in 0 s"):
        list(rows_of(TASK | {"work": "serve"}, 0.01, tmp_path / "log.txt", []))


def make_wheel(folder: Path, name: str) -> None:
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("brought.py", "")


def test_only_wheels_of_packages_that_are_not_here_are_unpacked(tmp_path):
    make_wheel(tmp_path, "lorasite_brought-1.0-py3-none-any.whl")
    make_wheel(tmp_path, "pydantic-2.0.0-py3-none-any.whl")  # older than the one that is installed
    unpacked = wheels.unpack_missing(tmp_path, tmp_path / "packages")
    assert list(unpacked) == ["lorasite-brought"]
    assert (unpacked["lorasite-brought"] / "brought.py").is_file()


def test_wheel_for_another_python_is_refused(tmp_path):
    make_wheel(tmp_path, "lorasite_brought-1.0-cp27-cp27m-manylinux1_x86_64.whl")
    with pytest.raises(wheels.WheelError, match="Gather again"):
        wheels.unpack_missing(tmp_path, tmp_path / "packages")
