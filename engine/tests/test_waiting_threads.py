"""The setting that lets OpenMP's threads sleep reaches the library that torch loads, and a user's own setting wins."""

import os
import subprocess
import sys

import pytest

# libgomp prints what it has read from the environment; GOMP_SPINCOUNT as a number of turns.
READ = "import {first}; import torch; torch.zeros(100_000).add_(1); import os; print(os.environ.get('GOMP_SPINCOUNT'))"


def spin_count(first: str = "engine", **environment: str) -> tuple[str, str]:
    """Return GOMP_SPINCOUNT as libgomp has read it and as the environment has it, after `first` was imported before torch."""
    unset = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", READ.format(first=first)],
        env=unset | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    line = next(line for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line)
    return line.split("'")[1], done.stdout.strip()


@pytest.mark.process
def test_torch_loads_with_threads_that_sleep() -> None:
    assert spin_count() == ("0", "0")


@pytest.mark.process
def test_users_own_settings_win() -> None:
    assert spin_count(GOMP_SPINCOUNT="77") == ("77", "77")
    assert spin_count(OMP_WAIT_POLICY="ACTIVE") == ("30000000000", "None")


@pytest.mark.process
def test_environment_stays_as_it_is_once_torch_is_loaded() -> None:
    assert spin_count("torch; import engine")[1] == "None"
