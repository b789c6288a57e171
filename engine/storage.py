"""Write, replace, link, remove and verify files and folders so that each exists whole or not at all.

This is the only module that puts anything lasting on disk. A write fills a draft beside its target, syncs it, renames
it over the target and syncs the parent folder. `rename` is atomic within a file system: whoever reads the target, also
after a crash or a power cut at any moment, finds the old content or the new one. A removal renames first, then deletes.

Drafts are hidden (`.draft-…`), and each call has a draft of its own, so two processes that write the same target never
mix their bytes; the last to finish wins. What a crash leaves is removed before the next write into the same folder, by one
rule: `sweep_drafts` where one process at a time writes, with `STALE_S` where others may be writing too, and
`sweep_drafts_of` where only one process at a time writes this target.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from engine.errors import CheckpointDamagedError, DiskError, DiskFullError, DiskRefusedError, FolderGoneError
from engine.sentences import Sentence, gettext_noop

DRAFT = ".draft-"
MANIFEST = "manifest.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
NAME_TAIL = 50  # characters of the target's name in that of its draft; a name may have 255 bytes
DRAFT_KEY = 32  # characters of the key that tells drafts of one target apart
STALE_S = 86_400  # nobody fills a draft for a day
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)  # `rename` onto a folder that holds something; systems differ in which

Fill = Callable[[Path], object]


def write_file(target: Path, fill: Fill) -> None:
    """Replace a file as a whole: `fill(draft)` writes the content to the path that it is given.

    Raises DiskError when it cannot be written; the target then stays as it was. Other errors of `fill` pass through.
    """
    with _draft(target) as draft, disk_errors(target):
        fill(draft)
        sync(draft)
        draft.replace(target)
        sync(target.parent)


def write_text(target: Path, text: str) -> None:
    """Replace a UTF-8 text file as a whole; errors as in `write_file`."""
    write_file(target, lambda draft: draft.write_text(text, encoding="utf-8"))


def write_json(target: Path, data: object) -> None:
    """Replace a JSON file as a whole. Raises ValueError if a number is infinite or NaN; otherwise as in `write_file`."""
    write_text(target, json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_folder(
    target: Path, fill: Fill, *, manifest: bool = True, keep_existing: bool = False, mode: int = 0o755
) -> None:
    """Replace a folder as a whole: `fill(draft)` writes the files into the empty folder that it is given.

    `manifest` adds a file with the hash of each file, for `verify_folder`. With `keep_existing` a target that is there
    by the time the draft is full stays: right where the name is a hash of the content, and gentler to readers.

    Raises DiskError when it cannot be written; the target then stays as it was. Other errors of `fill` pass through.
    """
    with _draft(target) as draft, disk_errors(target):
        draft.mkdir()
        draft.chmod(mode)
        fill(draft)
        if manifest:
            write_manifest(draft)
        sync_tree(draft)
        rename_folder(draft, target, keep_existing=keep_existing)
        sync(target.parent)


def write_manifest(folder: Path) -> None:
    """Write the SHA-256 of every file in the folder into a file of its own, for `verify_folder`."""
    (folder / MANIFEST).write_text(json.dumps(_hashes(folder), indent=1), encoding="utf-8")


def verify_folder(folder: Path) -> None:
    """Raise CheckpointDamagedError unless the folder holds exactly the files of its manifest, with the same content.

    Reads every byte below the folder.
    """
    try:
        expected = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        actual = _hashes(folder)
    except (OSError, ValueError) as error:
        raise CheckpointDamagedError(
            Sentence(gettext_noop("{name} has no readable manifest."), name=folder.name), path=str(folder)
        ) from error
    if expected != actual:
        raise CheckpointDamagedError(
            Sentence(gettext_noop("{name} does not hold what was written."), name=folder.name), path=str(folder)
        )


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name (a hard link), or copy it where the file system has no links or is another one.

    A link is safe because files are only ever replaced as a whole, never written into.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def copy_tree(source: Path, target: Path, on_missing: Callable[[Path], object] = lambda path: None) -> None:
    """Copy all files below `source` except drafts, with their times.

    on_missing: called with each file that somebody removed meanwhile; it is left out of the copy.
    """
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if not path.is_file() or any(part.startswith(DRAFT) for part in relative.parts):
            continue
        copy = target / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(path, copy)
        except FileNotFoundError:
            on_missing(path)


def remove_folder(folder: Path) -> list[str]:
    """Remove a folder if it is there, so that no half of it is ever seen under its name.

    Returns a line ("path: reason") for each file that the system would not delete; these remain in a draft.

    Raises OSError where the folder cannot even be renamed; then it is still whole.
    """
    draft = _draft_path(folder)
    try:
        folder.rename(draft)
    except FileNotFoundError:
        return []
    sync(folder.parent)  # before any file goes: a power cut must not bring the name back with half of its files
    left: list[str] = []
    shutil.rmtree(draft, onerror=lambda _function, path, error: left.append(f"{path}: {error[1]}"))
    return left


def remove(path: Path) -> list[str]:
    """Remove a file or folder if it is there; see `remove_folder`."""
    if path.is_dir():
        return remove_folder(path)
    path.unlink(missing_ok=True)
    return []


def sweep_drafts(folder: Path, *, older_than_s: float = 0) -> None:
    """Remove the drafts that interrupted calls have left in a folder.

    Where other processes write into the same folder, `older_than_s` spares the drafts that they are filling.
    """
    for draft in folder.glob(f"{DRAFT}*"):
        with suppress(OSError):  # its own writer or another sweep was faster
            if time.time() - draft.stat().st_mtime >= older_than_s:
                shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink()


def sweep_drafts_of(target: Path) -> None:
    """Remove what interrupted calls have left of one file or folder, which no other process may be writing now."""
    for draft in target.parent.glob(f"{DRAFT}*"):
        if draft.name[len(DRAFT) + DRAFT_KEY :] == f"-{target.name[-NAME_TAIL:]}":
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk.

    A rename is lasting only after its folder was synced too. See fsync(2).
    """
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
    """Turn errors of the disk while `target` is written into a DiskError with a sentence for a person."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise to_disk_error(error, target) from error


def to_disk_error(error: OSError | SafetensorError, target: Path) -> DiskError:
    """Return the DiskError for what the system or safetensors raised while `target` was written."""
    # safetensors is native code and has the system's error number in its text only.
    number = getattr(error, "errno", None)
    if not number:
        match = re.search(r"\(os error (\d+)\)", str(error))
        number = int(match[1]) if match else errno.EIO
        if isinstance(error, FileNotFoundError):
            number = errno.ENOENT
        elif "No space left" in str(error):
            number = errno.ENOSPC
    place = Path(getattr(error, "filename", None) or target)
    if number in GONE and (place.is_relative_to(target) or not target.parent.is_dir()):
        removed = place
        while not removed.parent.is_dir():
            removed = removed.parent
        return FolderGoneError(
            Sentence(
                gettext_noop(
                    "{name} was removed from the disk while the run went on, and what it held is gone. Resume the run: it "
                    "goes on from the newest checkpoint that is left, or from its first step."
                ),
                name=removed.name,
            ),
            path=str(target),
        )
    if number in FULL:
        is_too_large = number == errno.EFBIG
        cause = gettext_noop("the disk refused it ({reason})") if is_too_large else gettext_noop("the disk is full")
        return DiskFullError(
            Sentence(
                gettext_noop(
                    "{name} could not be written: {cause}. What was saved earlier is kept. Free some space and try again; a "
                    "training run resumes from its last checkpoint."
                ),
                name=target.name,
                cause=Sentence(cause, reason=os.strerror(number)),
            ),
            path=str(target),
        )
    return DiskRefusedError(
        Sentence(
            gettext_noop(
                "{name} could not be written or read: the disk refused it ({reason}). Earlier checkpoints are kept. See "
                "that its folder is there and may be written to, then resume the run."
            ),
            name=place.name,
            reason=os.strerror(number),
        ),
        path=str(place),
    )


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Give a path beside the target that nobody else uses, and remove what is still there at the end.

    The target's folder must be there: to make it would hide that somebody removed a run's results while it trained.
    """
    draft = _draft_path(target)
    try:
        yield draft
    finally:
        with suppress(OSError):  # the error that led here is the one to report
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


def _draft_path(target: Path) -> Path:
    return target.parent / f"{DRAFT}{uuid.uuid4().hex}-{target.name[-NAME_TAIL:]}"


def rename_folder(draft: Path, target: Path, *, keep_existing: bool) -> None:
    """Rename a folder over another one.

    A folder that holds something cannot be replaced in one step, so it is renamed to a draft first. Another process may
    put its own folder there in between; then that one is replaced in its turn. If the system refuses, the old folder
    comes back and the OSError is raised.
    """
    replaced: Path | None = None
    while True:
        try:
            draft.rename(target)
            break
        except OSError as error:
            if error.errno in OCCUPIED and keep_existing:
                return
            if error.errno not in OCCUPIED:
                if replaced:  # put the old one back
                    with suppress(OSError):
                        replaced.rename(target)
                raise
        if replaced:  # another process has put its folder there in between
            shutil.rmtree(replaced, ignore_errors=True)
        replaced = _draft_path(target)
        with suppress(FileNotFoundError):
            target.rename(replaced)
    if replaced:
        shutil.rmtree(replaced, ignore_errors=True)


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def file_hash(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, without reading the whole file into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
