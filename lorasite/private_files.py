"""What the installation writes is for its user alone: accounts, texts, models and keys lie there."""

import os
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

OTHERS = 0o077  # what a mode gives to group and others


def keep_private() -> Iterator[str]:
    """Let this process and its children write files that only their user can read, and close DATA_DIR to others.

    Yields what a person should know, as sentences. A folder that belongs to somebody else, such as a volume of a cluster,
    is left as it is. So is RESULTS_DIR, which people may have opened on purpose to fetch models from it.
    """
    os.umask(OTHERS)
    data, results = Path(settings.DATA_DIR), Path(settings.RESULTS_DIR)
    if mode := _open_to_others(data):
        if data.stat().st_uid != os.geteuid():
            yield f"DATA_DIR {data} has mode {mode:04o} and belongs to another user, so others may be able to read it."
        else:
            data.chmod(mode & ~OTHERS)
            yield f"DATA_DIR {data} could be read by others on this machine (mode {mode:04o}); now only by its user."
    if mode := _open_to_others(results):
        yield f"RESULTS_DIR {results} has mode {mode:04o}, so others on this machine may read what lies there already."


def _open_to_others(folder: Path) -> int:
    """The folder's mode where group or others have any right, else 0."""
    if not folder.is_dir():
        return 0
    mode = folder.stat().st_mode & 0o7777
    return mode if mode & OTHERS else 0
