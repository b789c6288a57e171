"""Readers that end as a malicious file could make ours end; `settings.DATASET_READER` names one of them."""

import ctypes
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from datasets_app.reading.reader_process import ANSWER, ROWS
from web.errors import InvalidError


def is_killed(*given: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def aborts(*given: Any, **options: Any) -> None:
    os.abort()


def reads_memory_at_address_zero(*given: Any, **options: Any) -> None:
    ctypes.string_at(0)


def panics(*given: Any, **options: Any) -> None:
    import polars as pl
    import pyarrow as pa

    print(pl.from_arrow(pa.array([2**31 - 1], pa.int32()).view(pa.date32())).to_list())  # type: ignore[union-attr]


def takes_memory(*given: Any, **options: Any) -> None:
    taken = []
    while True:
        taken.append(bytearray(8 << 20))


def takes_memory_natively(*given: Any, **options: Any) -> None:
    import pyarrow as pa

    pa.allocate_buffer(1 << 40)


def sleeps(file: Path, *given: Any, **options: Any) -> None:
    file.with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(60)


def computes(*given: Any, **options: Any) -> None:
    re.match("(a+)+$", "a" * 60 + "b")  # never lets go of Python's lock


def ignores_its_alarm(*given: Any, **options: Any) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)


def ends_its_process_group(*given: Any, **options: Any) -> None:
    os.killpg(0, signal.SIGKILL)


def forges_the_answer(file: Path, filename: str, *, scratch: Path, **options: Any) -> None:
    answer = {"table": {"kind": "csv"}, "names": ["text", "\x00row"]}
    (scratch / ANSWER).write_text(json.dumps(answer))
    (scratch / ROWS).write_bytes(b"ARROW1\0\0" + bytes(64) + b"ARROW1")
    os._exit(0)


def leaves_no_answer(*given: Any, **options: Any) -> None:
    os._exit(0)


def raises_its_environment(*given: Any, **options: Any) -> None:
    raise InvalidError(" ".join(f"{name}={value}" for name, value in os.environ.items()))


def raises_in_its_language(*given: Any, **options: Any) -> None:
    from datasets_app.reading.table import no_rows

    raise no_rows()
