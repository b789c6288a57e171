"""Read the rows of a run in another process, while this one imports torch and transformers.

Imports hold Python's lock, so a thread would only take turns with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.config_sections import DataSection
from engine.data.data_files import find_data_file
from engine.data.labelled_rows import Rows, Split
from engine.task_types import TaskType, is_language_model


class RowsAhead:
    """Rows that another process reads from now on. Call the object to get them, and `close` it in the end.

    name: a data file or a sample dataset. task: what the labels are.
    seed: of the sample of rows. cache: the folder where samples are written to.
    """

    def __init__(self, name: str, config: DataSection, task: TaskType, seed: int, cache: Path) -> None:
        self.arguments = (name, config, task, seed, cache)
        self.process: subprocess.Popen[bytes] | None = None
        package_folder = str(Path(__file__).resolve().parents[2])
        import_path = os.pathsep.join([package_folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        with suppress(OSError):  # no room for another process, or it has ended already: the rows are then read here
            self.process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-W", "ignore", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": import_path},
                process_group=0,  # Ctrl-C is for the run alone, which ends this process
            )
            arguments = [name, config.model_dump(mode="json"), task, seed, str(cache)]
            with self.process.stdin:  # type: ignore[union-attr]  # it is a pipe
                self.process.stdin.write(json.dumps(arguments).encode())  # type: ignore[union-attr]

    def __call__(self) -> Rows:
        """Wait for the rows and return them. What went wrong there is done again here, and raises its error here."""
        if self.process is not None and self.process.stdout is not None:
            with suppress(OSError, ValueError):  # the process has ended before all rows were written
                return rows_from_json(json.load(self.process.stdout))
        return read_rows(*self.arguments)

    def close(self) -> None:
        """End the process, whether or not it is done."""
        if self.process is not None:
            self.process.kill()
            with self.process:  # closes the pipes and waits
                pass


def read_rows(name: str, config: DataSection, task: TaskType, seed: int, cache: Path) -> Rows:
    """Return the rows of a data file or a sample dataset; see engine.data.rows.load_rows for the errors."""
    return rows_of(find_data_file(name, cache), config, task, seed)


def rows_of(source: Path | Rows | Callable[[], Rows], config: DataSection, task: TaskType, seed: int) -> Rows:
    """Return the rows of a run from what it was given: a data file, rows, or what returns them."""
    if isinstance(source, Rows):
        return source
    if callable(source):
        return source()
    # Deferred: they import polars, which neither rows in memory nor the process that waits needs.
    from engine.data.conversation_rows import load_chat_rows
    from engine.data.rows import load_rows

    load = load_chat_rows if is_language_model(task) else load_rows
    return load(source, config, seed, task)


def rows_to_json(rows: Rows) -> dict[str, Any]:
    """Return rows as JSON holds them: no pickle, which could run code, comes back from a process that reads strangers' files."""
    splits = {"train": rows.train, "eval": rows.eval, "test": rows.test}
    return {
        "labels": rows.labels,
        "splits": {
            name: [split.texts, split.labels.tolist(), str(split.labels.dtype), split.labels.shape, split.text_pairs]
            for name, split in splits.items()
            if split is not None
        },
        "skipped_by_reason": rows.skipped_by_reason,
        "rare": rows.rare,
        "held_out_share": rows.held_out_share,
    }


def rows_from_json(content: dict[str, Any]) -> Rows:
    """Return the rows that `rows_to_json` took apart."""
    import numpy as np  # deferred like load_rows: the run imports it anyway, after this module

    splits = {
        name: Split(texts, np.array(labels, dtype).reshape(shape), text_pairs)
        for name, (texts, labels, dtype, shape, text_pairs) in content["splits"].items()
    }
    return Rows(
        content["labels"],
        train=splits["train"],
        eval=splits["eval"],
        test=splits.get("test"),
        skipped_by_reason=content["skipped_by_reason"],
        rare=content["rare"],
        held_out_share=content["held_out_share"],
    )


def main() -> None:
    """Read the arguments from standard input, and write the rows to standard output."""
    name, config, task, seed, cache = json.load(sys.stdin.buffer)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between the rows
    rows = read_rows(name, DataSection.model_validate(config), task, seed, Path(cache))
    with output:
        output.write(json.dumps(rows_to_json(rows)).encode())


if __name__ == "__main__":
    main()
