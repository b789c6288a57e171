"""Seconds from process start to first step: the command line now, at another commit, and the Hugging Face Trainer, in turns.

    python bench/starting.py [--rounds 3] [--before COMMIT] [--no-trainer] [--cold]

Each start is a process of its own: `python -m engine config/default.yaml` on the sample data and the sample base model, and
the script of bench/train.py that uses Trainer and PEFT on the same rows. The clock starts before the process and stops when
its first optimiser step is done. --cold gives each start an empty cache, so that it writes the sample and tokenizes it.
Last come the parts of a start: when each begins and ends.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 120
# Functions that are timed inside of a start, by the module through which they are called.
PARTS = {
    "engine": ["import_libraries"],
    "engine.tasks.text_task": [
        "prepare_encoding", "tokenise", "load_classifier", "add_adapter", "fused_forward",
    ],
    "engine.training.probe": ["find_fault"],
    "engine.kernels.int8": ["kernels"],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", metavar="COMMIT", help="a commit to compare with")
    parser.add_argument("--no-trainer", action="store_true")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--parts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parts:
        time_parts(options.parts)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder)
        contenders = {"command line": ROOT}
        if options.before:
            contenders[f"command line at {options.before}"] = check_out(options.before, folder / "before")
        try:
            compare(contenders, config, folder, options)
        finally:
            if options.before:
                subprocess.run(["git", "worktree", "remove", "--force", folder / "before"], cwd=ROOT, check=True)
        run_parts(config, folder)


def compare(contenders: dict[str, Path], config: Path, folder: Path, options: argparse.Namespace) -> None:
    """Start everything in turns and print the medians."""
    for root in contenders.values():  # the first start fills caches: byte code, kernels, sample, tokens
        first_step_of_command(root, config, folder, cold=False)
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, root in contenders.items():
            seconds.setdefault(name, []).append(first_step_of_command(root, config, folder, options.cold))
        if not options.no_trainer:
            seconds.setdefault("Trainer with PEFT", []).append(first_step_of_trainer(folder))
    reached = statistics.median(seconds["command line"])
    for name, all_seconds in seconds.items():
        each = ", ".join(f"{value:.2f}" for value in all_seconds)
        median = statistics.median(all_seconds)
        print(f"{name:32} {median:5.2f} s to the first step ({median / reached:.2f} times; {each})", flush=True)


def write_config(folder: Path) -> Path:
    import yaml

    config = yaml.safe_load((ROOT / "config/default.yaml").read_text())
    config["training"]["logging_steps"] = 1  # so that logs.txt has the first step at once
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def check_out(commit: str, folder: Path) -> Path:
    command = ["git", "worktree", "add", "--quiet", "--detach", str(folder), commit]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


def first_step_of_command(root: Path, config: Path, folder: Path, cold: bool) -> float:
    """Start the command line of a working tree and return the seconds until its log has the first step."""
    results = Path(tempfile.mkdtemp(dir=folder))
    cache = results / "cache" if cold else folder / "cache"
    command = [sys.executable, "-m", "engine", str(config), "--results", str(results), "--cache", str(cache)]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=root, env=environment(root), stderr=subprocess.PIPE)
    log = results / "sample-tweets/logs.txt"
    while not (log.exists() and "Step 1/" in log.read_text()):
        if process.poll() is not None or time.monotonic() - started > PATIENCE_S:
            sys.exit(f"No first step: {process.stderr and process.stderr.read().decode()[-2000:]}")
        time.sleep(0.005)
    seconds = time.monotonic() - started
    process.kill()
    process.communicate()
    return seconds


def first_step_of_trainer(folder: Path) -> float:
    """Start bench/train.py's Trainer for one step and return the seconds that it reports."""
    if not (folder / "tweets.parquet").exists():
        sample = next((folder / "cache/samples").glob("*.parquet"))
        (folder / "tweets.parquet").write_bytes(sample.read_bytes())
    command = [sys.executable, "bench/train.py", "--worker", "trainer", "--full", "--steps", "1"]
    command += ["--folder", str(folder)]
    started = {"STARTED": str(time.time())}
    done = subprocess.run(command, cwd=ROOT, env=environment(ROOT) | started, capture_output=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["first_step_s"])


def environment(root: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def run_parts(config: Path, folder: Path) -> None:
    """Print when the parts of one start begin and end. Timing them takes a little time of its own."""
    command = [sys.executable, __file__, "--parts", str(folder)]
    started = {"STARTED": str(time.time())}
    subprocess.run(command, cwd=ROOT, env=environment(ROOT) | started, stderr=subprocess.DEVNULL, check=True)


def time_parts(folder: Path) -> None:
    from importlib import import_module

    started = float(os.environ["STARTED"])
    lines: list[tuple[float, float, str]] = []

    def timed(module_name: str, name: str) -> None:
        module = import_module(module_name)
        function = getattr(module, name)

        def call(*arguments: object, **options: object) -> object:
            begin = time.time() - started
            try:
                return function(*arguments, **options)
            finally:
                end = time.time() - started
                if end - begin > 0.01:  # not the second call of what is cached
                    lines.append((begin, end, name))

        setattr(module, name, call)

    import engine.__main__
    from engine import Event, StageChanged, StepDone
    from engine.data.rows_ahead import RowsAhead
    from engine.training import console

    lines.append((0.0, time.time() - started, "Python and our own modules"))
    import_libraries = engine.__main__.import_libraries

    def import_and_time_rest() -> None:
        begin = time.time() - started
        import_libraries()
        lines.append((begin, time.time() - started, "import torch, transformers, peft"))
        for module, names in PARTS.items():
            for name in names:
                timed(module, name)

    def show(event: Event, bar: object) -> None:
        if isinstance(event, StageChanged):
            stage_began[0] = time.time() - started
        elif isinstance(event, StepDone):
            lines.append((stage_began[0], time.time() - started, "first step"))
            for begin, end, name in sorted(lines):
                print(f"{begin:6.2f} to {end:5.2f} s  {name}")
            sys.stdout.flush()
            os._exit(0)

    read = RowsAhead.__call__

    def wait_for_rows(rows: RowsAhead) -> object:
        begin = time.time() - started
        try:
            return read(rows)
        finally:
            lines.append((begin, time.time() - started, "wait for the rows"))

    stage_began = [0.0]
    engine.__main__.import_libraries = import_and_time_rest
    RowsAhead.__call__ = wait_for_rows  # type: ignore[method-assign,assignment]
    console.show = show
    engine.__main__.main(
        [str(folder / "config.yaml"), "--results", str(folder / "parts"), "--cache", str(folder / "cache")]
    )


if __name__ == "__main__":
    main()
