"""Training speed of this commit beside an earlier one: equal blocks of steps of both, in turns.

    python bench/before.py COMMIT [--blocks 60]

Two processes, one of each commit, train on the same rows with the settings of the preset "balanced". Only one of them runs at
any time, five steps long, so that a machine whose speed changes from minute to minute treats both alike. Printed are ratios
over 1 where this commit is faster: the median of neighbouring blocks, with quartiles, by wall time and by CPU time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
STEPS = 5  # of a block
WARM_UP = 2  # blocks
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
    parser.add_argument("--blocks", type=int, default=60)
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
    """Let both processes train a block in turns, and print what the times say."""
    command = [sys.executable, "-W", "ignore", __file__, options.commit, "--blocks", str(options.blocks)]
    processes = {
        name: subprocess.Popen(
            [*command, "--worker", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "RESULTS": str(folder / name)},
        )
        for name, tree in trees.items()
    }  # fmt: skip
    blocks: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for name in trees:
        next_block(processes[name])  # whatever comes before the first step
    for turn in range(options.blocks):
        for name in sorted(trees, reverse=bool(turn % 2)):
            blocks[name].append(next_block(processes[name]))
    for process in processes.values():
        process.communicate("stop\n")
    if [block["tokens"] for block in blocks["now"]] != [block["tokens"] for block in blocks["before"]]:
        sys.exit("The two commits did not train on the same tokens, so their times can't be compared.")
    for measure in ("wall_s", "cpu_s"):
        ratios = [old[measure] / new[measure] for old, new in zip(blocks["before"], blocks["now"], strict=True)][
            WARM_UP:
        ]
        low, _middle, high = quantiles(ratios, n=4)
        print(
            f"{measure}: {median(ratios):.3f} times as fast (quartiles {low:.3f} to {high:.3f}, {len(ratios)} blocks)"
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


def train_blocks(folder: Path, blocks: int) -> None:
    """Train a block whenever a line comes in, and print its times. Uses what both commits have."""
    from engine import StepDone, train
    from engine.config import RunConfig

    config = RunConfig.parse({**CONFIG, "training": TRAINING | {"max_steps": STEPS * (blocks + 2)}})
    sys.stdin.readline()
    tokens, steps, wall, cpu = 0, 0, time.perf_counter(), time.process_time()
    for event in train(config, data_file=folder / "rows.parquet", results=Path(os.environ["RESULTS"])):
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
