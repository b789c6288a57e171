"""How OpenMP's threads wait for each other. Does not import torch, because libgomp reads its settings when it is loaded.

After each parallel part of an operation, the threads of torch, MKL, oneDNN and our own kernels (all of them use the libgomp
of torch) wait for the next part. By default they spin for milliseconds. Alone that saves the time of waking up; beside another
program, a spinning thread takes a core from the thread that it waits for, and a run falls to a tenth of its speed.
"""

from __future__ import annotations

import os
import sys

SPIN_COUNT = "GOMP_SPINCOUNT"
CHOSEN_BY_USERS = (SPIN_COUNT, "OMP_WAIT_POLICY")


def let_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait, unless the environment says how they wait.

    Takes effect only before torch is imported; afterwards nothing is changed, so that child processes do not differ.
    """
    if "torch" in sys.modules or any(name in os.environ for name in CHOSEN_BY_USERS):
        return
    os.environ[SPIN_COUNT] = "0"
