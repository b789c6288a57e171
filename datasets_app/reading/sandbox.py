"""Read an untrusted file in a process of its own, with limits on memory and time.

However that process ends (an error, a panic of native code, a crash, a kill), the caller gets a table or an error with a
message. The result is Arrow IPC and JSON, validated before use, because a malicious file may have taken over the process.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from datasets_app.reading.archives import FileTooLargeError
from datasets_app.reading.options import FileOptions
from datasets_app.reading.reader_process import ANSWER, OUT_OF_MEMORY, ROWS
from web.errors import InvalidError, LorasiteError

if TYPE_CHECKING:
    from datasets_app.reading.table import Table

log = logging.getLogger(__name__)
AT_A_TIME = 2  # files that this process has read at once; each may take READER_MEMORY_MB
QUICK_SECONDS = 20.0  # wall time while a person waits for the answer
_WALL_TIME_FACTOR = 4  # times READER_SECONDS in the queue, because training runs take the CPUs first
_WAIT_SECONDS = 5.0  # for a free reader
_GRACE_SECONDS = 5.0  # beyond the time limit, which the reader enforces on itself
_ANSWER_BYTES = 64 << 20  # the broken lines that are kept are most of it
_IN_MEMORY = 64 << 20  # bytes; larger results stay on disk and are mapped
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH")


class ReadingStoppedError(InvalidError):
    """The reader was stopped, or died, before it had read the file."""

    code = "reading_stopped"


class ReadersBusyError(LorasiteError):
    """All readers are in use."""

    code = "busy"
    status = 503
    wait = 5
    message = gettext_lazy("Other files are being read at the moment. Nothing was stored; try again in a few seconds.")


def read(
    file: Path,
    filename: str,
    *,
    limit: int,
    seconds: float | None = None,
    options: FileOptions | None = None,
    head: bool = False,
    only: Sequence[str] = (),
    waiting: Callable[[], None] = lambda: None,
) -> "Table":
    """Read a file as `readers.read` does. Raises InvalidError, FileTooLargeError, ReadingStoppedError or ReadersBusyError.

    `seconds`: limit of wall time; READER_SECONDS limits the CPU time. `waiting` is called twice a second; what it raises ends
    the read.
    """
    seconds = min(seconds or settings.READER_SECONDS * _WALL_TIME_FACTOR, settings.READER_SECONDS * _WALL_TIME_FACTOR)
    cpu_seconds = min(seconds, settings.READER_SECONDS)
    arguments = {"limit": limit, "options": vars(options or FileOptions()), "head": head, "only": list(only)}
    with tempfile.TemporaryDirectory(prefix="reading-", dir=settings.FILE_UPLOAD_TEMP_DIR) as folder:
        request = {
            "reader": settings.DATASET_READER,
            "file": str(file.resolve()),
            "filename": filename,
            "folder": folder,
            "language": get_language() or settings.LANGUAGE_CODE,
            "memory": settings.READER_MEMORY,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "arguments": arguments,
        }
        status = run_in_reader(request, waiting)
        if status:
            raise _describe_end(status, cpu_seconds if status == -signal.SIGXCPU else seconds)
        return load_result(Path(folder))


def _describe_end(status: int, seconds: float) -> ReadingStoppedError:
    """Return the error for the exit status of a reader; `seconds` is the limit that it ran into, if any."""
    log.warning("A file's reader ended with status %s.", status)
    memory = settings.READER_MEMORY >> 20
    if status == OUT_OF_MEMORY:
        message = _(
            "Reading this file takes more than %(limit)s MiB of memory, so it was stopped. Nothing was stored. "
            "Split the file, or ask an administrator to raise READER_MEMORY_MB."
        ) % {"limit": memory}
    elif status in (-signal.SIGALRM, -signal.SIGXCPU):
        message = _(
            "Reading this file takes longer than %(limit)s seconds, so it was stopped. Nothing was stored. "
            "Split the file, or ask an administrator to raise READER_SECONDS."
        ) % {"limit": f"{seconds:g}"}
    elif status == -signal.SIGKILL:
        message = _(
            "The system stopped the reading of this file, as it does when memory runs out. Nothing was stored. "
            "Try again later, or split the file."
        )
    else:
        return ReadingStoppedError(
            _(
                "The program that reads files crashed on this one: it is damaged, of an unsupported kind, or needs more "
                "than %(limit)s MiB of memory. Nothing was stored. Save the rows in another format, such as CSV."
            )
            % {"limit": memory},
            field="file",
        )
    stopped = ReadingStoppedError(message, field="file")
    stopped.status = 413
    return stopped


# --- the result ----------------------------------------------------------------------------------------------


def load_result(folder: Path) -> "Table":
    """Return the table that the reader left, or raise the error that it left.

    A malicious file may have written both, so anything unexpected counts as a crash of the reader.
    """
    try:
        if (folder / ANSWER).stat().st_size > _ANSWER_BYTES:
            raise ValueError("The answer is too large.")
        answer = json.loads((folder / ANSWER).read_bytes())
        error: Exception
        if "table" in answer:
            return load_table(answer["table"], answer["names"], folder / ROWS)
        if "failed" in answer:
            number, reason, name = answer["failed"]
            error = OSError(number, reason, name)
        else:
            refused = answer["refused"]
            kind = FileTooLargeError if refused["code"] == FileTooLargeError.code else InvalidError
            error = kind(refused["message"], problems=refused["problems"], **refused["facts"])
    except (ValueError, TypeError, KeyError, FileNotFoundError) as problem:
        log.warning("A file's reader left no usable answer: %s", problem)
        error = _describe_end(-signal.SIGABRT, 0)
    raise error


def load_table(facts: dict[str, Any], names: list[str], rows: Path) -> "Table":
    """Return the table in an Arrow file; raise ValueError unless its columns are the text that was asked for."""
    import polars as pl  # half a second, which pages without a file need not wait for
    import pyarrow as pa

    from datasets_app.reading.table import ROW, Table

    content = pa.memory_map(str(rows)) if rows.stat().st_size > _IN_MEMORY else pa.BufferReader(rows.read_bytes())
    arrow_table = pa.ipc.open_file(content).read_all()
    arrow_table.validate(full=True)  # offsets that point outside the buffers would crash this process
    expected = [pa.uint32() if name == ROW else pa.large_string() for name in names]
    if arrow_table.schema.types != expected or len({*names, ROW}) != len(names):
        raise ValueError("The rows are of another kind than asked for.")
    frame = pl.from_arrow(arrow_table.rename_columns([str(i) for i in range(len(names))]), rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    table = Table(frame.rename(dict(zip(frame.columns, names, strict=True))), **facts)
    table.encodings = tuple(table.encodings)
    return table


# --- the processes -----------------------------------------------------------------------------------------------


class Reader:
    """A running `reader_process.py`, and the pipes to it."""

    def __init__(self) -> None:
        self.usable = False
        # Each thread reserves address space, which the memory limit counts.
        few_threads = {
            "POLARS_MAX_THREADS": "2",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "2",
            "MALLOC_ARENA_MAX": "2",
        }
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "datasets_app.reading.reader_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
            env=passed_on | few_threads,
            start_new_session=True,  # so that Ctrl-C does not reach it, and its whole group can be killed
        )

    def read(self, request: dict[str, Any], waiting: Callable[[], None]) -> int:
        """Have a file read; return the exit status of the process that read it, negative for a signal."""
        assert self.process.stdin and self.process.stdout
        self.usable = False
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + request["seconds"] + _GRACE_SECONDS
        while not select.select([self.process.stdout], [], [], 0.5)[0]:
            waiting()
            if time.monotonic() > deadline:
                return -signal.SIGALRM
        if line := self.process.stdout.readline():
            self.usable = True
            return int(line)
        if (status := self.process.wait(1)) >= 0:
            raise RuntimeError(f"The process that reads files ended by itself (exit status {status}).")
        return status

    def end(self) -> None:
        """Kill the process and its children."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


_turns = threading.BoundedSemaphore(AT_A_TIME)
_idle: list[Reader] = []


def _forget_readers() -> None:
    """Start anew in a forked child: the readers belong to its parent."""
    global _turns, _idle
    _turns = threading.BoundedSemaphore(AT_A_TIME)
    _idle = []


os.register_at_fork(after_in_child=_forget_readers)


def run_in_reader(request: dict[str, Any], waiting: Callable[[], None]) -> int:
    """Have an idle reader read the file, or a new one, and return its exit status. It is used again if it answered."""
    turns = _turns  # a fork of this thread would replace the global
    if not turns.acquire(timeout=_WAIT_SECONDS):
        raise ReadersBusyError
    try:
        reader = None
        with suppress(IndexError):  # none is idle; another thread may have taken the last one
            while reader is None:
                reader = _idle.pop()
                if reader.process.poll() is not None:  # it died while it was idle
                    reader.end()
                    reader = None
        reader = reader or Reader()
        try:
            return reader.read(request, waiting)
        finally:
            if reader.usable:
                _idle.append(reader)
            else:
                reader.end()
    finally:
        turns.release()
