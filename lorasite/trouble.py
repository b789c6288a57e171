"""One sentence for what keeps every command from working: a folder or a database that can't be used."""

import errno
import os
from pathlib import Path

from django.db import DatabaseError

NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, *NO_FOLDER)


def sentence(error: Exception) -> str:
    """What is wrong and what to do; empty for what a traceback explains better."""
    if isinstance(error, OSError):
        return _of_folder(error)
    return _of_database(error) if isinstance(error, DatabaseError) else ""


def _of_folder(error: OSError) -> str:
    from lorasite.env import env

    ours = (("DATA_DIR", env.data_dir), ("RESULTS_DIR", env.results_dir))
    place = Path(os.fsdecode(error.filename or "")).resolve()
    name = next((name for name, folder in ours if _touches(place, folder.resolve())), "")
    if not name or not error.filename or error.errno not in REFUSED:
        return ""
    reason = "it is no folder" if error.errno in NO_FOLDER else os.strerror(error.errno)
    return (
        f"{place} can't be used ({reason}). {name} must be a folder that this account may write to, on a disk with room. "
        "Nothing was changed; set that right, or set another."
    )


def _touches(place: Path, folder: Path) -> bool:
    return place.is_relative_to(folder) or folder.is_relative_to(place)


def _of_database(error: DatabaseError) -> str:
    from django.conf import settings

    name = getattr(error.__cause__, "sqlite_errorname", None) or ""
    place, reason = settings.DATABASES["default"]["NAME"], str(error).strip().partition("\n")[0]
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return (
            f"The database {place} is damaged ({reason}). Nothing was changed. Move it away and put it back from a backup "
            "(docs/deploy.md)."
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_PERM")):
        return (
            f"The database {place} can't be used ({reason}). See that this account may write to it and to its folder, and "
            "that the disk has room."
        )
    if getattr(error.__cause__, "sqlstate", "") is None:  # psycopg, before a server has answered
        return f"The database {place} can't be reached ({reason}). See that it runs, and that DATABASE_URL is right."
    return ""
