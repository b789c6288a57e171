"""Threads of OpenMP sleep while another program needs the cores, and spin again afterwards; a user's own setting wins."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Between two parts of an operation in parallel, the other threads of the team spin or sleep: their CPU time tells which.
PROGRAM = """
import sys, time, torch
from engine.waiting_threads import IdleTeam
torch.set_num_threads(2)
data = torch.ones(1 << 20)

def spinning():
    before = time.process_time()
    for _ in range(200):
        data.add_(1)
        time.sleep(0.001)
    return time.process_time() - before

spinning()
alone = spinning()
team = IdleTeam()
team.start()
time.sleep(0.2)
beside = spinning()
team.end()
after = spinning()
print(alone, beside, after)
"""


def environment(**further: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    return kept | {"PYTHONPATH": str(ROOT)} | further


@pytest.mark.process
@pytest.mark.skipif(len(os.sched_getaffinity(0)) != 2, reason="a team of two threads is one for each core")
def test_an_idle_team_stops_the_spinning_until_it_ends() -> None:
    line = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=True)
    alone, beside, after = map(float, done.stdout.split())
    assert beside < alone * 0.75 and beside < after * 0.75


WATCHED = """
import threading, time, torch
from engine import waiting_threads
torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
waiting_threads.PERIOD_S = 0.1
waiting_threads.watch_other_programs()
waiting_threads.watch_other_programs()
print(sum(thread.name == "waiting threads" for thread in threading.enumerate()), flush=True)
while True:
    time.sleep(0.05)
    print(int(any(thread.name == "idle team" for thread in threading.enumerate())), flush=True)
"""


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
def test_a_busy_program_starts_the_idle_team() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    watched = subprocess.Popen([sys.executable, "-c", WATCHED], env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert watched.stdout and watched.stdout.readline().strip() == "1"
        deadline = time.monotonic() + 20
        while watched.stdout.readline().strip() != "1":
            assert time.monotonic() < deadline
    finally:
        for process in busy:
            process.kill()
            process.wait()
        watched.kill()
        watched.wait()


@pytest.mark.process
def test_users_own_setting_wins() -> None:
    line = [sys.executable, "-c", WATCHED]
    process = subprocess.Popen(line, env=environment(GOMP_SPINCOUNT="77"), stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline().strip() == "0"
    process.kill()
    process.wait()
