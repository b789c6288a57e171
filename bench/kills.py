"""Short runs on a whole running site whose processes are killed at random, each 5 to 20 seconds (SIGKILL).

    python bench/kills.py [--runs 50] [--every 5 20] [--lease 30] [--seed 0]

Kills in turns at random the run's process, its worker, or both together. First a few runs go unharmed: they tell what a
run's steps take, and what of the wall time is useful step time without any kill. Then it prints how each run ended, after how
many seconds each kill was mended (the next attempt starts, and its first step is done), how many steps were done twice, and
useful step time by wall time. Fails when a run does not end in SUCCESS.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")

import httpx2 as httpx  # comes with huggingface_hub
import psutil

from bench.click import signed_in, upload
from testing.site import running_site

UNHARMED = 3
ENDED = ("SUCCESS", "FAILURE", "CANCELLED")
CONFIG = {
    "data": {"dataset_name": "tweets", "train_samples": 800, "eval_samples": 64, "max_length": 64},
    "training": {
        "device": "cpu", "logging_steps": 1, "num_train_epochs": 1, "per_device_train_batch_size": 32,
        "eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 10,
    },
    "system": {"baseline": False},
}  # fmt: skip


class Killer(threading.Thread):
    """Waits, kills, and remembers when it killed what."""

    def __init__(self, every: tuple[float, float], seed: int) -> None:
        super().__init__(daemon=True)
        self.every, self.chance = every, random.Random(seed)
        self.kills: list[tuple[datetime, str]] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(self.chance.uniform(*self.every)):
            what = self.chance.choice(["run", "worker", "both"])
            victims = self.victims(what)
            for process in victims:
                process.kill()
            if victims:
                self.kills.append((datetime.now(UTC), what))

    def victims(self, what: str) -> list[psutil.Process]:
        site = next(p for p in psutil.Process().children() if "start" in p.cmdline())
        # The child of the supervisor imports the libraries, its child is the worker, and the worker's child is the run.
        importers = [p for p in site.children() if p.cmdline()[-1] == "worker"]
        workers = [worker for importer in importers for worker in importer.children()]
        runs = [run for worker in workers for run in worker.children()]
        if not runs:
            return []  # nothing is running at this moment
        return {"run": runs, "worker": workers, "both": [*workers, *runs]}[what]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--every", type=float, nargs=2, default=(5, 20), metavar=("FROM", "TO"), help="seconds")
    parser.add_argument("--lease", type=int, default=30, help="LEASE_SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = {"LEASE_SECONDS": str(options.lease), "THROTTLE_TRAIN": "off"}
    with tempfile.TemporaryDirectory() as folder, running_site(Path(folder), **settings) as address:
        client = signed_in(address)
        upload(client, Path(folder) / "tweets.csv")
        bring_to_their_end(client, 1)  # tokens are made, the worker has imported all
        unharmed, quiet = bring_to_their_end(client, UNHARMED)
        killer = Killer(tuple(options.every), options.seed)
        killer.start()
        runs, wall = bring_to_their_end(client, options.runs)
        killer.enough.set()
    tell(statistics.median(map(step_seconds, unharmed)), quiet, runs, wall, killer.kills)


def bring_to_their_end(client: httpx.Client, count: int) -> tuple[list[dict[str, Any]], float]:
    """Submit so many and wait for all of them; what each came to, and the seconds that all took."""
    started = time.monotonic()
    ids = [client.post("/api/train", json=CONFIG).raise_for_status().json()["task_id"] for _ in range(count)]
    for task in ids:
        while client.get(f"/api/task/{task}").raise_for_status().json()["status"] not in ENDED:
            time.sleep(0.25)
    wall = time.monotonic() - started
    return [{**client.get(f"/api/task/{task}").json(), "lines": lines_of(client, task)} for task in ids], wall


def lines_of(client: httpx.Client, task: str) -> list[tuple[datetime, str]]:
    lines: list[tuple[datetime, str]] = []
    after = 0
    while page := (answer := client.get(f"/api/task/{task}/logs", params={"after": after}).json())["lines"]:
        lines += [(datetime.fromisoformat(line["at"]), line["text"]) for line in page]
        after = answer["next"]
    return lines


def steps_of(run: dict[str, Any]) -> list[tuple[datetime, str]]:
    return [(at, text.split("/")[0]) for at, text in run["lines"] if text.startswith("Step ")]


def step_seconds(run: dict[str, Any]) -> float:
    """From before the first step to the last one, of a run that nobody disturbed."""
    steps = steps_of(run)
    return (steps[-1][0] - steps[0][0]).total_seconds() * len(steps) / (len(steps) - 1)


def tell(
    useful: float, quiet: float, runs: list[dict[str, Any]], wall: float, kills: list[tuple[datetime, str]]
) -> None:
    ends = Counter(run["status"] for run in runs)
    starts = sorted(at for run in runs for at, text in run["lines"] if text.startswith("Attempt "))
    print(f"{len(runs)} runs of {useful:.1f} s of steps each, {len(kills)} kills in {wall:.0f} s: {dict(ends)}")
    all_steps = sorted(at for run in runs for at, _text in steps_of(run))
    for kind in ("run", "worker", "both"):
        mended = [
            next((s - at).total_seconds() for s in starts if s > at) for at, k in kills if k == kind and at < starts[-1]
        ]
        next_steps = [
            next((s - at).total_seconds() for s in all_steps if s > at)
            for at, k in kills
            if k == kind and at < all_steps[-1]
        ]
        if mended and next_steps:
            print(f"  {kind} killed {len(mended)} times: the next attempt starts after {statistics.median(mended):.1f} s "
                  f"(median; at most {max(mended):.1f} s), its next step is done after {statistics.median(next_steps):.1f} s "
                  f"(at most {max(next_steps):.1f} s)")  # fmt: skip
    twice = [len(steps := steps_of(run)) - len({text for _at, text in steps}) for run in runs]
    print(f"  steps done twice: {sum(twice)} in all, at most {max(twice)} in one run")
    share, without = len(runs) * useful / wall, UNHARMED * useful / quiet
    print(f"  useful step time / wall time: {share:.2f}; without kills {without:.2f}")
    if set(ends) != {"SUCCESS"}:
        sys.exit("Not all runs ended well.")


if __name__ == "__main__":
    main()
