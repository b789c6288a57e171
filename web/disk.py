"""A full disk: words for it, and a reserve that is given up then, so that people can still sign in and delete something."""

import errno
import logging
import os
import re
import shutil
import threading
from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from web.errors import LorasiteError

log = logging.getLogger(__name__)

RESERVE = 16 * 2**20  # SQLite's write-ahead log takes 4 MiB before it starts again, more while somebody reads for long
LOW = 4 * 2**20  # with less room than this the reserve is given up
SMALL = 64 * 1024  # bytes of a request that may be accepted on a full disk: signing in, deleting
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_FULL_IN_POSTGRESQL, _READ_ONLY_IN_POSTGRESQL = "53100", "25006"
# On a full disk SQLite says these too, where a file beside the database can't grow.
_REFUSED_BY_SQLITE = ("SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")
_filling = threading.Lock()


class DiskFull(LorasiteError):
    code, status = "disk_full", 507
    message = gettext_lazy(
        "The server's disk is full, so this was not stored; what was stored before is kept. "
        "Delete datasets or experiments that nobody needs, then try again."
    )


class DiskRefused(LorasiteError):
    code, status = "disk_refused", 503


def explained(error: BaseException) -> LorasiteError | None:
    """The words for an error that the disk or the database's disk has caused; None for any other error."""
    if is_full(error):
        release()
        return DiskFull()
    reason = _refusal(error)
    if not reason:
        return None
    message = _(
        "The server's disk refuses to be written to (%(reason)s), so this was not stored; what was stored before is "
        "kept. Tell your administrator."
    )
    return DiskRefused(message % {"reason": reason})


def is_full(error: BaseException) -> bool:
    """Whether this error of a file, SQLite or PostgreSQL says that there is no room."""
    sqlite = _sqlite_name(error)
    return (
        _number(error) in FULL
        or sqlite == "SQLITE_FULL"
        or (sqlite.startswith(_REFUSED_BY_SQLITE) and _free(Path(settings.DATA_DIR)) < LOW)
        or _sqlstate(error) == _FULL_IN_POSTGRESQL
    )


def _refusal(error: BaseException) -> str:
    number = _number(error)
    if number in REFUSED:
        return os.strerror(number)
    refused = _sqlite_name(error).startswith(_REFUSED_BY_SQLITE) or _sqlstate(error) == _READ_ONLY_IN_POSTGRESQL
    return str(error).strip() if refused else ""


def _sqlite_name(error: BaseException) -> str:
    return getattr(error.__cause__, "sqlite_errorname", None) or ""


def _sqlstate(error: BaseException) -> str:
    return getattr(error.__cause__, "sqlstate", None) or ""


def _number(error: BaseException) -> int:
    """The system's error number; native libraries (polars, safetensors) have it in their text only."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0


def require_room(more: int = 0) -> None:
    """DiskFull unless `more` bytes fit without the reserve."""
    if not has_room(more):
        raise DiskFull


def has_room(more: int = 0) -> bool:
    return all(
        _free(Path(place)) + _held() - RESERVE >= LOW + more for place in (settings.DATA_DIR, settings.RESULTS_DIR)
    )


def keep_reserve() -> None:
    """Give the reserve up when room runs out, and take it again when there is enough. Asked at each request: two calls."""
    try:
        free, held = _free(Path(settings.DATA_DIR)), _held()
        if held and free < LOW:
            release()
        elif held < RESERVE and free > RESERVE + 2 * LOW:
            _fill()
    except OSError as error:
        log.warning("The reserve of disk space could not be kept: %s", error)


def release() -> None:
    if _held():
        log.warning("The disk is full; the reserve is given up so that people can sign in and delete something.")
        _reserve().unlink(missing_ok=True)


def _fill() -> None:
    if not _filling.acquire(blocking=False):
        return
    try:
        with _reserve().open("wb") as file:
            file.write(os.urandom(RESERVE))  # zeros would take no room on a file system that compresses
            os.fsync(file.fileno())
    except OSError:
        _reserve().unlink(missing_ok=True)
        raise
    finally:
        _filling.release()


def _reserve() -> Path:
    return Path(settings.DATA_DIR) / "reserve"


def _held() -> int:
    try:
        return _reserve().stat().st_size
    except OSError:
        return 0


def _free(place: Path) -> int:
    """Bytes that are free where a folder is, or would be made."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return shutil.disk_usage(there).free
