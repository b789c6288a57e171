"""Train in the foreground: python -m engine config/default.yaml [--results DIR] [--data FILE]

On several GPUs of this machine: torchrun --nproc-per-node 2 -m engine config/default.yaml
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from pathlib import Path

from engine import ConfigError, EngineError, Problem, RunConfig, import_libraries
from engine.data.data_files import check_data_name
from engine.data.rows_ahead import RowsAhead
from engine.errors import DataUnreadableError, RunInterruptedError
from engine.memory_limits import limit_to_free_memory
from engine.names import folder_name, shorten_name
from engine.safe_yaml import NotYamlError, text_of
from engine.training.console import train_in_terminal


def main(arguments: list[str] | None = None) -> int:
    """Train, and return the exit status: 0 done, 1 stopped by an error or by Ctrl-C, 2 invalid configuration."""
    options = parse_arguments(arguments)
    limit_to_free_memory()
    is_main_process = rank_and_size()[0] == 0
    try:
        config = read_config(options.config)
        data_name = str(options.data or config.data.dataset_name)
        if options.data is None:
            check_data_name(data_name)
        name = find_free_name(config.experiment_name, options.results)
        folder = options.results / folder_name(name)
        if name != config.experiment_name and is_main_process:
            finished = options.results / folder_name(config.experiment_name)
            print(f"{finished} holds a finished run; this one goes to {folder}.", file=sys.stderr)
        with closing(RowsAhead(data_name, config.data, config.task, config.training.seed, options.cache)) as rows:
            import_libraries()
            train_in_terminal(
                config.model_copy(update={"experiment_name": name}),
                data_file=rows,
                results=folder,
                base_models_dir=options.base_models,
                cache_dir=options.cache / "tokens",
                quiet=not is_main_process,
            )
    except ConfigError as error:
        return report_failure("\n".join(problem.message for problem in error.problems), 2)
    except RunInterruptedError as error:
        return report_failure(f"{error} Run the same command again to resume.", 1)
    except EngineError as error:
        return report_failure(str(error), 1)
    except KeyboardInterrupt:
        return report_failure("Stopped before the first step. Run the same command to start again.", 1)
    if is_main_process:
        print(f"Everything is in {folder}.")
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; defaults come from the environment variables that the platform uses too."""
    data_dir = Path(os.environ.get("DATA_DIR") or "var")
    results_dir = Path(os.environ.get("RESULTS_DIR") or "results")
    base_models_dir = os.environ.get("BASE_MODELS_DIR")
    parser = argparse.ArgumentParser(
        prog="python -m engine", description="Fine-tune an encoder or a language model with LoRA."
    )
    parser.add_argument("config", type=Path, help="YAML file, such as config/default.yaml")
    parser.add_argument("--data", type=Path, help="data file to use instead of data.dataset_name")
    parser.add_argument("--results", type=Path, default=results_dir, help="folder of all experiments")
    parser.add_argument(
        "--base-models",
        type=Path,
        default=Path(base_models_dir) if base_models_dir else None,
        help="folder of base models",
    )
    parser.add_argument("--cache", type=Path, default=data_dir / "cache", help="folder for samples and tokens")
    return parser.parse_args(arguments)


def read_config(path: Path) -> RunConfig:
    """Read a YAML file. Raises ConfigError for its content, DataUnreadableError for the file."""
    try:
        return RunConfig.from_yaml(text_of(path))
    except NotYamlError as error:
        raise ConfigError([Problem("", str(error), "yaml")]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataUnreadableError(f"The configuration {path} cannot be read: {reason}.") from error


def find_free_name(experiment_name: str, results: Path) -> str:
    """Return the experiment's name, or name-2, name-3 … if a finished run has it already."""
    name = experiment_name
    number = 1
    while (results / folder_name(name) / "metrics.json").exists():
        number += 1
        name = f"{shorten_name(experiment_name, room=4)}-{number}"
    return name


def rank_and_size() -> tuple[int, int]:
    """Return this process's number among those of torchrun, and how many they are, as World does: but that imports torch."""
    return int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)


def report_failure(message: str, status: int) -> int:
    """Print why the run ended, with the process's number if there are several; return the exit status."""
    rank, size = rank_and_size()
    if rank:
        message = f"Process {rank + 1} of {size}: {message}"
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
