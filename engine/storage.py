"""Files and folders that exist whole or not at all: written aside, synced, renamed, parent synced."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from safetensors import SafetensorError

from engine.errors import CheckpointDamaged, DiskError, DiskFull, DiskRefused, FolderGone

DRAFT = ".draft-"
MANIFEST = "manifest.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


def replace_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a draft, then put it in the place of `target`; DiskError when it can't be written."""
    draft = target.parent / f"{DRAFT}{os.getpid()}-{target.name}"
    try:
        with disk_errors(target):
            write(draft)
            sync(draft)
            draft.replace(target)
            sync(target.parent)
    finally:
        with suppress(OSError):  # what went wrong before is the news
            draft.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Replace a text file as a whole."""
    replace_atomically(target, lambda draft: draft.write_text(text, encoding="utf-8"))


def write_json(target: Path, data: Any) -> None:
    """Replace a JSON file as a whole; numbers must be finite."""
    write_text(target, json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_folder(target: Path, fill: Callable[[Path], object], mode: int = 0o755) -> None:
    """Let `fill` write a folder's files, add a manifest of their hashes, and put it in the place of `target`."""
    with disk_errors(target):
        draft = Path(mkdtemp(prefix=f"{DRAFT}{target.name}-", dir=target.parent))
    try:
        with disk_errors(target):
            draft.chmod(mode)
            fill(draft)
            (draft / MANIFEST).write_text(json.dumps(_hashes(draft), indent=1), encoding="utf-8")
            sync_tree(draft)
            if target.exists():
                remove_folder(target)
            draft.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def verify_folder(folder: Path) -> None:
    """Raise CheckpointDamaged unless every file of the manifest has the content it had when it was written."""
    try:
        expected = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = _hashes(folder)
    except (OSError, ValueError) as error:
        raise CheckpointDamaged(f"{folder.name} has no readable manifest.", path=str(folder)) from error
    if expected != found:
        raise CheckpointDamaged(f"{folder.name} does not hold what was written.", path=str(folder))


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name."""
    draft = folder.parent / f"{DRAFT}removed-{os.getpid()}-{folder.name}"
    folder.rename(draft)
    shutil.rmtree(draft, ignore_errors=True)


def sweep_drafts(folder: Path) -> None:
    """Remove what an interrupted save has left."""
    for draft in folder.glob(f"{DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Sync all files and folders below and including `folder`."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn what the disk says while `target` is written into a DiskError with a sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise _explained(error, target) from error


def _explained(error: Exception, target: Path) -> DiskError:
    number, place = _number(error), Path(getattr(error, "filename", None) or target)
    if number in GONE and (place.is_relative_to(target) or not target.parent.is_dir()):
        return FolderGone(
            f"{_removed(place).name} was removed from the disk while the run went on, and what it held is gone. "
            "Resume the run: it goes on from the newest checkpoint that is left, or from its first step.",
            path=str(target),
        )
    if number in FULL:
        cause = "the disk is full" if number != errno.EFBIG else f"the disk refused it ({os.strerror(number)})"
        return DiskFull(
            f"{target.name} could not be written: {cause}. Earlier checkpoints are kept. "
            "Free some space and resume the run.",
            path=str(target),
        )
    return DiskRefused(
        f"{place.name} could not be written or read: the disk refused it ({os.strerror(number)}). Earlier checkpoints "
        "are kept. See that its folder is there and may be written to, then resume the run.",
        path=str(place),
    )


def _removed(place: Path) -> Path:
    """The topmost of a path's folders that is not there any more."""
    while not place.parent.is_dir():
        place = place.parent
    return place


def _number(error: Exception) -> int:
    """The system's error number; safetensors, which is native code, has it in its text only."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    if "No space left" in str(error):
        return errno.ENOSPC
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else errno.EIO


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): _hash(path) for path in files}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
