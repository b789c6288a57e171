"""Keep what the installation writes from other users of the machine: accounts, texts, models and keys."""

import os
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

OTHERS = 0o077  # the bits of a mode that give rights to group and others


def restrict_file_permissions() -> Iterator[str]:
    """Make this process and its children write files that only their user can read, and close DATA_DIR to others.

    Yield what a person should know, as sentences. A folder that belongs to another user, such as a volume of a cluster,
    is left unchanged. So is RESULTS_DIR, which people may have opened on purpose to fetch models from it.
    """
    os.umask(OTHERS)
    data, results = Path(settings.DATA_DIR), Path(settings.RESULTS_DIR)
    mode = mode_open_to_others(data)
    if mode and data.stat().st_uid != os.geteuid():
        yield f"DATA_DIR {data} has mode {mode:04o} and belongs to another user, so others may be able to read it."
    elif mode:
        data.chmod(mode & ~OTHERS)
        yield f"DATA_DIR {data} could be read by others on this machine (mode {mode:04o}); now only by its user."
    mode = mode_open_to_others(results)
    if mode:
        yield f"RESULTS_DIR {results} has mode {mode:04o}, so others on this machine may read the files in it."


def mode_open_to_others(folder: Path) -> int:
    """Return the folder's mode if it gives group or others any right, else 0."""
    if not folder.is_dir():
        return 0
    mode = folder.stat().st_mode & 0o7777
    return mode if mode & OTHERS else 0
