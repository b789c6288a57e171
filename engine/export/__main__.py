"""Export a final model: python -m engine.export FINAL_MODEL TARGET --format safetensors [--base-models DIR] [--check FILE]"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import get_args

from engine.config import RunConfig
from engine.errors import DataUnreadableError, EngineError
from engine.export import Format, export_model
from engine.serve.model_files import read_info
from engine.task_types import is_language_model


def main(arguments: list[str] | None = None) -> int:
    """Export, print the figures, and return the exit status: 0 done, 1 stopped by an error."""
    options = parse_arguments(arguments)
    try:
        texts, text_pairs, training_texts = read_texts(options.check, options.final_model)
        check = export_model(
            options.final_model,
            options.target,
            options.format,
            base_models_dir=options.base_models,
            texts=texts,
            text_pairs=text_pairs,
            training_texts=training_texts,
        )
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped, and nothing was written.", file=sys.stderr)
        return 1
    print(f"{check.sentence} Everything is in {options.target}.")
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; the default of --base-models comes from the environment variable that the platform uses too."""
    base_models_dir = os.environ.get("BASE_MODELS_DIR")
    parser = argparse.ArgumentParser(prog="python -m engine.export", description="Export a final model.")
    parser.add_argument("final_model", type=Path, help="folder such as results/<experiment>/artifacts/final_model")
    parser.add_argument("target", type=Path, help="new folder")
    parser.add_argument("--format", choices=get_args(Format), default="safetensors")
    parser.add_argument(
        "--base-models",
        type=Path,
        default=Path(base_models_dir) if base_models_dir else None,
        help="folder of base models",
    )
    parser.add_argument(
        "--check",
        type=Path,
        help="texts to compare answers on, one a line; a tab separates the texts of a pair. For a language model, its data file: "
        "the held-out rows are compared, filled up to 100 prompts by training rows and parts of both",
    )
    return parser.parse_args(arguments)


def read_texts(path: Path | None, final_model: Path) -> tuple[list[str] | None, list[str] | None, list[str]]:
    """Return the texts of a file, if every line has a tab the second text of each, and texts to fill them up with.

    For a language model, these are the conversations or preferences of its test and evaluation rows, and its training rows, as JSON.
    Raises DataUnreadableError.
    """
    if path is None:
        return None, None, []
    try:
        task = read_info(final_model).task
    except (OSError, ValueError, KeyError):
        task = "sequence_classification"  # the usual one; the export then refuses the folder
    if is_language_model(task):
        from engine.export.held_out import read_compared_rows  # deferred: imports polars

        rows = read_compared_rows(path, RunConfig.parse({"task": task}))
        return rows.held_out, None, rows.training
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataUnreadableError(f"The file {path} cannot be read: {reason}.") from error
    if lines and all("\t" in line for line in lines):
        pairs = [line.partition("\t") for line in lines]
        return [first for first, _tab, _second in pairs], [second for _first, _tab, second in pairs], []
    return lines, None, []


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half written is removed
    sys.exit(main())
