"""Training speed of this commit beside an earlier one: equal blocks of steps of both, in turns.

    python bench/before.py COMMIT [--rounds 8] [--blocks 8]

In each round four new processes, two of each commit, train on the same rows with the settings of the preset "balanced". Only
one of them runs at any time, five steps long, so that a machine whose speed changes from minute to minute treats all alike.
Two processes of one commit differ by some percent for as long as they live, so that only rounds tell commits apart: printed
are the mean of their ratios, over 1 where this commit is faster, and its standard error. COMMIT may be HEAD, to see the noise.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parent.parent
STEPS = 5  # of a block
WARM_UP = 2  # blocks, of which the first one has everything that comes before the first step
MEASURES = ("wall_s", "cpu_s")
TRAINING = {
    "learning_rate": 0.001,
    "per_device_train_batch_size": 32,
    "seed": 7,
    "eval_strategy": "no",
    "save_strategy": "no",
}
CONFIG = {"lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}, "system": {"baseline": False}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=8, help="of each process in a round")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train_blocks(options.worker, options.blocks)
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), options.commit], cwd=ROOT, check=True)
        try:
            write_rows(Path(folder) / "rows.parquet")
            compare(options, Path(folder), {"now": ROOT, "before": tree})
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def write_rows(path: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from samples import tweets_en

    tweets_en().unique("text", keep="first", maintain_order=True).select("text", "label").write_parquet(path)


def compare(options: argparse.Namespace, folder: Path, trees: dict[str, Path]) -> None:
    """Print how many times as fast this commit is, round by round and on average."""
    rounds = []
    for number in range(options.rounds):
        rounds.append(time_round(options, folder / f"round-{number}", trees))
        print(", ".join(f"{measure} {ratio:.3f}" for measure, ratio in rounds[-1].items()), flush=True)
    for measure in MEASURES:
        ratios = [ratio[measure] for ratio in rounds]
        error = stdev(ratios) / len(ratios) ** 0.5
        print(f"{measure}: {mean(ratios):.3f} ± {error:.3f} times as fast ({len(ratios)} rounds)")


def time_round(options: argparse.Namespace, folder: Path, trees: dict[str, Path]) -> dict[str, float]:
    """Return how many times as fast this commit is in four new processes, by each measure."""
    names = ["now", "before", "before", "now"]  # so that whoever starts first is no matter
    workers = [start_worker(options, folder / str(number), trees[name]) for number, name in enumerate(names)]
    for _ in range(WARM_UP):
        for worker in workers:
            next_block(worker)
    spent = dict.fromkeys([(name, measure) for name in trees for measure in MEASURES], 0.0)
    for turn in range(options.blocks):
        order = range(4) if turn % 2 else reversed(range(4))
        blocks = {number: next_block(workers[number]) for number in order}
        if len({block["tokens"] for block in blocks.values()}) > 1:
            sys.exit("The two commits did not train on the same tokens, so their times can't be compared.")
        for number, block in blocks.items():
            for measure in MEASURES:
                spent[names[number], measure] += block[measure]
    for worker in workers:
        worker.communicate("stop\n")
    return {measure: spent["before", measure] / spent["now", measure] for measure in MEASURES}


def start_worker(options: argparse.Namespace, results: Path, tree: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", __file__, options.commit, "--blocks", str(options.blocks)]
    return subprocess.Popen(
        [*command, "--worker", str(results.parent.parent / "rows.parquet")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "RESULTS": str(results)},
    )


def next_block(process: "subprocess.Popen[str]") -> dict[str, float]:
    assert process.stdin and process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit(f"A worker ended with status {process.wait()}.")
    times: dict[str, float] = json.loads(line)
    return times


def train_blocks(rows: Path, blocks: int) -> None:
    """Train a block whenever a line comes in, and print its times. Uses what both commits have."""
    from engine import StepDone, train
    from engine.config import RunConfig

    config = RunConfig.parse({**CONFIG, "training": TRAINING | {"max_steps": STEPS * (blocks + WARM_UP + 1)}})
    sys.stdin.readline()
    tokens, steps, wall, cpu = 0, 0, time.perf_counter(), time.process_time()
    for event in train(config, data_file=rows, results=Path(os.environ["RESULTS"])):
        if not isinstance(event, StepDone):
            continue
        tokens, steps = tokens + event.tokens, steps + 1
        if steps % STEPS == 0:
            times = {"tokens": tokens, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
            print(json.dumps(times), flush=True)
            if sys.stdin.readline().strip() != "go":
                return
            tokens, wall, cpu = 0, time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
