"""A model version's own folder: whole or not at all, and linked to the run's files where the disk allows it."""

from pathlib import Path
from typing import Any

from engine.errors import DiskFullError, EngineError
from engine.storage import MANIFEST, STALE_S, link_or_copy, sweep_drafts, verify_folder, write_folder
from web import disk
from web.errors import ConflictError
from web.sentences import translate

from ..models import Experiment

ADAPTER = ("adapter_model.safetensors", "adapter_config.json")


def checkpoints(experiment: Experiment) -> dict[str, Any]:
    """Return the entries of metrics.json for best, last and fastest whose files are still there."""
    entries = experiment.metrics.get("checkpoints", {})
    return {
        name: entries[name]
        for name in ("best", "last", "fastest")
        if name in entries and (experiment.folder / entries[name]["path"] / ADAPTER[0]).is_file()
    }


def store_model_files(experiment: Experiment, checkpoint: str, target: Path) -> int:
    """Fill `target` with the final model, or with the same and another checkpoint's adapter; return its size in bytes.

    Files are linked to the run's own where the disk allows it, so that a registered model costs next to nothing.
    """
    source = experiment.final_model
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_drafts(target.parent, older_than_s=STALE_S)
        verify_folder(source)
        files = {path.name: path for path in source.iterdir() if path.is_file() and path.name != MANIFEST}
        if checkpoint != "best":
            # A checkpoint has only the adapter; the tokenizer is the final model's.
            folder = experiment.folder / checkpoints(experiment)[checkpoint]["path"]
            verify_folder(folder)
            files |= {name: folder / name for name in ADAPTER}

        def fill(draft: Path) -> None:
            for name, path in files.items():
                link_or_copy(path, draft / name)

        write_folder(target, fill)
    except DiskFullError as error:
        raise disk.InsufficientStorageError from error
    except EngineError as error:
        raise ConflictError(translate(error.message)) from None
    return sum(path.stat().st_size for path in target.iterdir())
