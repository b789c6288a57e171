"""Read the rows of a run in another process, while this one imports torch and transformers.

Imports hold Python's lock, so a thread would only take turns with them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from engine.config import DataSection
from engine.data.data_files import find_data_file
from engine.data.labelled_rows import Rows


class RowsAhead:
    """Rows that another process reads from now on. Call the object to get them, and `close` it in the end.

    name: a data file or a sample dataset. seed: of the sample of rows. cache: the folder where samples are written to.
    """

    def __init__(self, name: str, config: DataSection, seed: int, cache: Path) -> None:
        self.arguments = (name, config, seed, cache)
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
            with self.process.stdin:  # type: ignore[union-attr]  # it is a pipe
                pickle.dump(self.arguments, self.process.stdin)  # type: ignore[arg-type]

    def __call__(self) -> Rows:
        """Wait for the rows and return them. What went wrong there is done again here, and raises its error here."""
        if self.process is not None and self.process.stdout is not None:
            with suppress(EOFError, OSError, pickle.UnpicklingError):
                rows = pickle.load(self.process.stdout)  # noqa: S301  # our own process wrote it
                assert isinstance(rows, Rows)
                return rows
        return read_rows(*self.arguments)

    def close(self) -> None:
        """End the process, whether or not it is done."""
        if self.process is not None:
            self.process.kill()
            with self.process:  # closes the pipes and waits
                pass


def read_rows(name: str, config: DataSection, seed: int, cache: Path) -> Rows:
    """Return the rows of a data file or a sample dataset; see engine.data.rows.load_rows for the errors."""
    from engine.data.rows import load_rows  # deferred: imports polars, which the process that waits does not need

    return load_rows(find_data_file(name, cache), config, seed)


def main() -> None:
    """Read the arguments from standard input, and write the rows to standard output."""
    arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  # RowsAhead wrote it
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between the rows
    rows = read_rows(*arguments)
    with output:
        pickle.dump(rows, output, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
