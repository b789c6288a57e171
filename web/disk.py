"""Full and read-only disks: error messages, and a reserve that is released so that people can still sign in and delete."""

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

LOW = 4 * 2**20  # with less free space than this the reserve is released
SMALL = 64 * 1024  # bytes of a request that is accepted even on a full disk: signing in, deleting
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_FULL_IN_POSTGRESQL = "53100"
_READ_ONLY_IN_POSTGRESQL = "25006"
# SQLite reports these on a full disk, too, when a file next to the database can't grow.
_REFUSED_BY_SQLITE = ("SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")
_filling = threading.Lock()


class InsufficientStorageError(LorasiteError):
    code = "disk_full"
    status = 507
    message = gettext_lazy(
        "The server's disk is full, so this was not stored; what was stored before is kept. "
        "Delete datasets or experiments that nobody needs, then try again."
    )


class DiskNotWritableError(LorasiteError):
    code = "disk_refused"
    status = 503


def error_to_show(error: BaseException) -> LorasiteError | None:
    """Return the error to show if the disk, or the database's disk, caused `error`; None for any other error."""
    if is_full(error):
        release_reserve()
        return InsufficientStorageError()
    number, sqlite_name, sqlstate = _causes(error)
    if number in REFUSED:
        reason = os.strerror(number)
    elif sqlite_name.startswith(_REFUSED_BY_SQLITE) or sqlstate == _READ_ONLY_IN_POSTGRESQL:
        reason = str(error).strip()
    else:
        return None
    message = _(
        "The server's disk can't be written to (%(reason)s), so this was not stored; what was stored before is "
        "kept. Tell your administrator."
    )
    return DiskNotWritableError(message % {"reason": reason})


def is_full(error: BaseException) -> bool:
    """Return whether an error of a file, SQLite or PostgreSQL means that the disk is full."""
    number, sqlite_name, sqlstate = _causes(error)
    if number in FULL or sqlite_name == "SQLITE_FULL" or sqlstate == _FULL_IN_POSTGRESQL:
        return True
    return sqlite_name.startswith(_REFUSED_BY_SQLITE) and _free(Path(settings.DATA_DIR)) < LOW


def _causes(error: BaseException) -> tuple[int, str, str]:
    """Return the system's error number, SQLite's name of the error and PostgreSQL's SQLSTATE; 0 or "" for those it lacks.

    Django's database errors have the driver's error as their cause. Errors of polars and safetensors have the number only
    in their text.
    """
    number = error.errno if isinstance(error, OSError) else None
    match = re.search(r"\(os error (\d+)\)", str(error))
    if not number and match:
        number = int(match[1])
    sqlite_name = getattr(error.__cause__, "sqlite_errorname", None)
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    return number or 0, sqlite_name or "", sqlstate or ""


def require_disk_space(more: int = 0) -> None:
    """Raise InsufficientStorageError unless `more` bytes fit without the reserve."""
    if not has_disk_space(more):
        raise InsufficientStorageError


def has_disk_space(more: int = 0) -> bool:
    """Return whether `more` bytes fit into both DATA_DIR and RESULTS_DIR without the reserve."""
    reserve_to_fill = settings.DISK_RESERVE - _reserve_size()
    for folder in (settings.DATA_DIR, settings.RESULTS_DIR):
        available = _free(Path(folder)) - reserve_to_fill
        if available < LOW + more:
            return False
    return True


def keep_reserve() -> None:
    """Release the reserve when free space runs out; fill it again once there is enough. Costs two system calls."""
    try:
        free = _free(Path(settings.DATA_DIR))
        size = _reserve_size()
        if size and free < LOW:
            release_reserve()
            return
        if size >= settings.DISK_RESERVE or free <= settings.DISK_RESERVE + 2 * LOW:
            return
        if not _filling.acquire(blocking=False):  # another request fills it
            return
        try:
            with _reserve().open("wb") as file:
                file.write(
                    os.urandom(settings.DISK_RESERVE)
                )  # a file system that compresses would store zeros in no space
                os.fsync(file.fileno())
        except OSError:
            _reserve().unlink(missing_ok=True)
            raise
        finally:
            _filling.release()
    except OSError as error:
        log.warning("The reserve of disk space could not be filled: %s", error)


def release_reserve() -> None:
    """Delete the reserve, so that its space is free."""
    # Another process may delete it first, hence missing_ok.
    if _reserve_size():
        log.warning("The disk is full; the reserve is released so that people can sign in and delete something.")
        _reserve().unlink(missing_ok=True)


def _reserve() -> Path:
    return Path(settings.DATA_DIR) / "reserve"


def _reserve_size() -> int:
    try:
        return _reserve().stat().st_size
    except OSError:
        return 0


def _free(folder: Path) -> int:
    """Return the free bytes on the disk of a folder that may not exist yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free
