"""Train in the foreground: python -m engine config/default.yaml [--results DIR] [--data FILE]

On several GPUs of this machine: torchrun --nproc-per-node 2 -m engine config/default.yaml
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

from engine import (
    ConfigError,
    EngineError,
    Evaluated,
    Finished,
    Notice,
    Prepared,
    RunConfig,
    StageChanged,
    StepDone,
    train,
)
from engine.errors import DataUnreadable, Interrupted
from engine.memory_limits import refuse_more_than_free
from engine.training.distributed import World


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 stopped by an error or by Ctrl-C, 2 wrong configuration."""
    options = _options(arguments)
    refuse_more_than_free()
    try:
        config = _config(options.config)
        data_file = options.data or _data_file(config.data.dataset_name, options.cache)
        config, folder = _free_name(config, options.results)
        return _run(config, data_file, folder, options)
    except ConfigError as error:
        return _fail("\n".join(problem.message for problem in error.problems), 2)
    except Interrupted as error:
        return _fail(f"{error} The same command resumes it.", 1)
    except EngineError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("Stopped before the first step; nothing was lost. Run the same command to start again.", 1)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    data_dir = Path(os.environ.get("DATA_DIR") or "var")
    models = os.environ.get("BASE_MODELS_DIR")
    parser = argparse.ArgumentParser(prog="python -m engine", description="Fine-tune an encoder with LoRA.")
    parser.add_argument("config", type=Path, help="YAML file, such as config/default.yaml")
    parser.add_argument("--data", type=Path, help="data file, instead of data.dataset_name")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(os.environ.get("RESULTS_DIR") or "results"),
        help="folder of all experiments",
    )
    parser.add_argument(
        "--base-models", type=Path, default=Path(models) if models else None, help="folder of base models"
    )
    parser.add_argument("--cache", type=Path, default=data_dir / "cache", help="folder for samples and tokens")
    return parser.parse_args(arguments)


def _config(path: Path) -> RunConfig:
    try:
        return RunConfig.from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataUnreadable(f"The configuration {path} can't be read: {reason}.") from error


def _data_file(name: str, cache: Path) -> Path:
    """A file's path, or a sample by name; hub ids and stored datasets are the platform's to resolve."""
    from samples import SAMPLES

    if Path(name).is_file():
        return Path(name)
    if name not in SAMPLES:
        raise DataUnreadable(
            f"There is no data file {name}, and no sample of that name. Samples: {', '.join(SAMPLES)}. "
            "Give a file with --data.",
            field="data.dataset_name",
        )
    return _sample_file(name, cache / "samples")


def _sample_file(name: str, folder: Path) -> Path:
    """The sample without exact duplicates and without rows that its graders did not agree on, as Parquet."""
    import polars as pl

    from engine.storage import write_file
    from samples import SAMPLES

    frame = SAMPLES[name]()
    if "confidence" in frame.columns:
        frame = frame.filter(pl.col("confidence") >= 0.6)
    frame = frame.unique("text", keep="first", maintain_order=True).select("text", "label")
    content = hashlib.sha256(frame.write_csv().encode()).hexdigest()[:16]
    path = folder / f"{name}-{content}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, frame.write_parquet)
    return path


def _free_name(config: RunConfig, root: Path) -> tuple[RunConfig, Path]:
    """The experiment's folder, or name-2, name-3 … where a finished run has it already."""
    number, name = 1, config.experiment_name
    while (root / name / "metrics.json").exists():
        number += 1
        name = f"{config.experiment_name[:76]}-{number}"
    if number > 1 and World.from_environment().is_main_process:
        print(f"{root / config.experiment_name} holds a finished run; this one goes to {root / name}.", file=sys.stderr)
    return config.model_copy(update={"experiment_name": name}), root / name


def _run(config: RunConfig, data_file: Path, folder: Path, options: argparse.Namespace) -> int:
    from tqdm import tqdm

    asked: list[int] = []
    events = train(
        config,
        data_file=data_file,
        results=folder,
        base_models_dir=options.base_models,
        cache_dir=options.cache / "tokens",
        should_save=lambda: bool(asked),
    )
    leads = World.from_environment().is_main_process
    with tqdm(unit="step", dynamic_ncols=True, disable=not leads) as bar, closing(events):
        for event in events:
            if leads:
                _show(event, bar)
            if isinstance(event, Prepared):
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, lambda received, frame: asked.append(received))
    if leads:
        print(f"Everything is in {folder}.")
    return 0


def _show(event: object, bar) -> None:
    match event:
        case StageChanged(stage=stage):
            bar.set_description(stage)
        case Prepared():
            bar.reset(event.total_steps)
            bar.update(event.resumed_from_step)
            bar.write(
                f"{event.train_rows} rows, {len(event.labels)} labels, {event.device}, {event.precision}",
                file=sys.stderr,
            )
        case StepDone():
            bar.set_postfix(loss=f"{event.loss:.3f}", tokens_per_s=f"{event.tokens_per_second:,.0f}", refresh=False)
            bar.update()
        case Evaluated(metrics=metrics):
            bar.write(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()), file=sys.stderr)
        case Notice(message=message):
            bar.write(message, file=sys.stderr)
        case Finished(metrics=found):
            bar.write(f"Held-out accuracy {found['eval']['accuracy']:.4f}", file=sys.stderr)


def _fail(message: str, status: int) -> int:
    world = World.from_environment()
    print(message if world.is_main_process else f"Process {world.rank + 1} of {world.size}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
