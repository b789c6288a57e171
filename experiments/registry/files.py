"""A model version's own folder: whole or not at all, and linked to the run's files where the disk allows it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import DiskFull, EngineError
from engine.storage import MANIFEST, sweep_drafts, verify_folder, write_folder
from web import disk
from web.errors import Conflict

from ..models import Experiment

ADAPTER = ("adapter_model.safetensors", "adapter_config.json")


def checkpoints(experiment: Experiment) -> dict[str, Any]:
    """best, last and fastest, those whose files are still there."""
    kept = experiment.metrics.get("checkpoints", {})
    return {
        name: kept[name]
        for name in ("best", "last", "fastest")
        if name in kept and (experiment.folder / kept[name]["path"] / ADAPTER[0]).is_file()
    }


def keep(experiment: Experiment, checkpoint: str, target: Path) -> int:
    """Fill `target` with the final model, or with another checkpoint's adapter in its place; the bytes that it takes.

    A link and no copy where both are on one disk: the run's files are only ever replaced as a whole, never written into.
    """
    source = experiment.final_model
    with engine_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_drafts(target.parent)
        verify_folder(source)
        files = {path.name: path for path in source.iterdir() if path.is_file() and path.name != MANIFEST}
        if checkpoint != "best":
            folder = experiment.folder / checkpoints(experiment)[checkpoint]["path"]
            verify_folder(folder)
            files |= {name: folder / name for name in ADAPTER}
        write_folder(target, partial(_fill, files))
    return sum(path.stat().st_size for path in target.iterdir())


def remove(folder: Path) -> None:
    """Aside first, in one rename, so that nobody ever reads half of it."""
    if folder.exists():
        gone = folder.with_name(f".deleted-{folder.name}")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _fill(files: dict[str, Path], draft: Path) -> None:
    for name, path in files.items():
        _link(path, draft / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)


@contextmanager
def engine_errors() -> Iterator[None]:
    try:
        yield
    except DiskFull as error:
        raise disk.DiskFull from error
    except EngineError as error:
        raise Conflict(str(error)) from None
