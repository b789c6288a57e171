"""Explain the errors that keep every command from working: a folder or a database that cannot be used."""

import errno
import os
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError

from lorasite.env import env

NOT_A_FOLDER = (errno.EEXIST, errno.ENOTDIR)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, *NOT_A_FOLDER)


def explain(error: Exception) -> str:
    """Return what is wrong and what to do next, in one line; empty if a traceback explains it better."""
    if isinstance(error, OSError):
        return _explain_folder_error(error)
    if isinstance(error, DatabaseError):
        return _explain_database_error(error)
    return ""


def _explain_folder_error(error: OSError) -> str:
    if not error.filename or error.errno not in REFUSED:
        return ""
    path = Path(os.fsdecode(error.filename)).resolve()
    for variable, folder in (("DATA_DIR", env.data_dir.resolve()), ("RESULTS_DIR", env.results_dir.resolve())):
        # The path may also be a parent of the folder, if the folder could not be created.
        if path.is_relative_to(folder) or folder.is_relative_to(path):
            reason = "it is not a folder" if error.errno in NOT_A_FOLDER else os.strerror(error.errno)
            return (
                f"{path} can't be used ({reason}). {variable} must be a folder that this account may write to, on a disk "
                "with free space. Nothing was changed; correct this, or set another folder."
            )
    return ""


def _explain_database_error(error: DatabaseError) -> str:
    database = settings.DATABASES["default"]["NAME"]
    reason = str(error).strip().partition("\n")[0]
    sqlite_code = getattr(error.__cause__, "sqlite_errorname", None) or ""
    if sqlite_code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return (
            f"The database {database} is damaged ({reason}). Nothing was changed. Move it away and restore it from a backup "
            "(docs/deploy.md)."
        )
    if sqlite_code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_PERM")):
        return (
            f"The database {database} can't be used ({reason}). Check that this account may write to it and to its folder, "
            "and that the disk has free space."
        )
    # psycopg sets sqlstate to None if no server has answered.
    if getattr(error.__cause__, "sqlstate", "") is None:
        return f"The database {database} can't be reached ({reason}). Check that it runs, and that DATABASE_URL is correct."
    return ""
