"""A run on rows in memory needs none of the packages that read files, check data or serve the web."""

import subprocess
import sys
from pathlib import Path

import pytest

PROCESS = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path

hidden = {"polars", "rensa", "lingua", "ftfy", "zhon", "datasets", "trl", "bitsandbytes", "liger_kernel", "django", "redis"}
find_spec = PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, *more: None if name.partition(".")[0] in hidden else find_spec(name, *more)
)
import numpy as np
from engine import Finished, Rows, RunConfig, Split, train
config = RunConfig.parse({
    "model": {"name": "tiny"},
    "training": {"max_steps": 2, "per_device_train_batch_size": 4, "device": "cpu"},
    "system": {"num_threads": 1},
})
texts = [f"{word} {place}" for word in ("good", "bad") for place in ("film", "book", "hotel", "meal")]
split = Split(texts, np.repeat([0, 1], 4))
*_, finished, _done = train(config, data_file=Rows(["bad", "good"], split, split), results=Path(sys.argv[2]),
                            base_models_dir=Path(sys.argv[1]))
assert isinstance(finished, Finished)
print(finished.metrics["train"]["steps"])
"""


@pytest.mark.process
def test_run_on_rows_in_memory_trains_without_the_packages_that_only_files_or_pages_need(bases, tmp_path):
    code = [sys.executable, "-W", "ignore", "-c", PROCESS, str(bases), str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split() == ["2"], done.stderr
    assert (tmp_path / "artifacts/final_model/adapter_model.safetensors").is_file()
