"""The process that reads data files: `python -m datasets_app.reading.reader_process`, started and used by `sandbox.py`.

It imports the libraries once and forks for each file, so that a read starts within milliseconds and in memory that no other
file has touched. It opens no file and computes nothing itself, because the threads of polars would not survive the fork. It
has no database, no secrets, and only the environment that `sandbox.py` passes on.

Requests are lines of JSON on stdin; the answer to each, on stdout, is the exit status of the forked process. Its result is in
the folder of the request: `answer.json`, and `rows.arrow` if there are rows.
"""

import errno
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from web.errors import LorasiteError

if TYPE_CHECKING:
    from datasets_app.reading.table import Table

CRASHED = 70  # exit statuses; death by a signal is a negative one
OUT_OF_MEMORY = 71
ROWS = "rows.arrow"
ANSWER = "answer.json"
_SLICE = 50_000  # rows that are converted at a time
_WATCH_SECONDS = 0.05


def main() -> None:
    """Import what every read needs, and as much of Django as translations need; then fork for each request."""
    import django
    from django.conf import settings

    settings.configure(LOCALE_PATHS=[Path(__file__).resolve().parents[2] / "locale"], USE_TZ=True)
    django.setup()

    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet

    from datasets_app.reading import readers

    del pyarrow, readers
    for line in sys.stdin.buffer:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            answer_and_exit(request)
        _pid, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def answer_and_exit(request: dict[str, Any]) -> NoReturn:
    """Read the file of a request within its limits, leave the answer in its folder, and end this process."""
    status = CRASHED
    try:
        # Close the pipes to the parent: code in a malicious file must not be able to answer in its name.
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        limit_resources(request["memory"], request["seconds"], request["cpu_seconds"])
        answer = read_file(request)
        (Path(request["folder"]) / ANSWER).write_text(json.dumps(answer, default=str))
        status = 0
    except MemoryError:
        status = OUT_OF_MEMORY
    except BaseException:  # a panic of native code is not an Exception
        traceback.print_exc()
    os._exit(status)


def limit_resources(memory: int, seconds: float, cpu_seconds: float) -> None:
    """End this process when it takes `memory` bytes more than now, `seconds` of wall time or `cpu_seconds` of CPU time."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    cpu = max(1, round(cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))  # SIGXCPU, and five seconds later SIGKILL, which says less
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # macOS does not enforce RLIMIT_AS, so a thread watches the memory, too.
    most_resident = peak_memory() + memory

    def end_when_over() -> None:
        while peak_memory() <= most_resident:
            time.sleep(_WATCH_SECONDS)
        os._exit(OUT_OF_MEMORY)

    threading.Thread(target=end_when_over, daemon=True).start()


def peak_memory() -> int:
    """Return the peak memory in bytes; `ru_maxrss` is in KiB on Linux and in bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read_file(request: dict[str, Any]) -> dict[str, Any]:
    """Read a file, write its rows, and return the answer: what `Table` says of them, or why the file was refused."""
    from django.utils import translation  # once `main` has configured Django
    from django.utils.module_loading import import_string

    translation.activate(request["language"])
    read = import_string(request["reader"])
    folder = Path(request["folder"])
    try:
        table = read(Path(request["file"]), request["filename"], scratch=folder, **request["arguments"])
        write_rows(table, folder / ROWS)
    except LorasiteError as error:
        problems = [{**problem, "message": str(problem["message"])} for problem in error.problems]
        refused = {"code": error.code, "message": str(error.message), "problems": problems, "facts": error.facts}
        return {"refused": refused}
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        return {"failed": [error.errno, error.strerror, error.filename]}
    facts = {name: value for name, value in vars(table).items() if name != "frame"}
    return {"table": facts, "names": table.frame.columns}


def write_rows(table: "Table", target: Path) -> None:
    """Write the rows as Arrow IPC. The columns are called 0, 1, …, because Arrow names cannot hold the NUL in `ROW`."""
    import polars as pl  # `sandbox.py` imports this module in processes that do without polars
    import pyarrow as pa

    oldest = pl.CompatLevel.oldest()
    frame = table.frame.rename({name: str(i) for i, name in enumerate(table.frame.columns)})
    schema = frame.head(0).to_arrow(compat_level=oldest).schema
    with pa.OSFile(str(target), "wb") as out, pa.ipc.new_file(out, schema) as writer:
        for part in frame.iter_slices(_SLICE):
            writer.write_table(part.to_arrow(compat_level=oldest))


if __name__ == "__main__":
    main()
