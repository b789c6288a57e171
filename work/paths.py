"""The folders of the installation, each named once, and the removal of files together with the rows that name them.

These are functions and not constants, because tests and commands change the settings that they read.
"""

import logging
from pathlib import Path

from django.conf import settings
from django.db import transaction

from engine import storage

log = logging.getLogger(__name__)


def data_dir() -> Path:
    """Everything but results: the database, datasets, models, caches, uploads, keys."""
    return Path(settings.DATA_DIR)


def results_dir() -> Path:
    """One folder per experiment, by its name."""
    return Path(settings.RESULTS_DIR)


def datasets_dir() -> Path:
    """Rows of dataset versions, by the hash of their content."""
    return data_dir() / "datasets"


def models_dir() -> Path:
    """One folder per registered model version, by its key."""
    return data_dir() / "models"


def exports_dir() -> Path:
    """Models in other formats, as one .zip file each; may be emptied at any time."""
    return data_dir() / "exports"


def token_cache_dir() -> Path:
    """Token ids of texts that were tokenised before; may be emptied at any time."""
    return data_dir() / "cache" / "tokens"


def hub_cache_dir() -> Path:
    """Datasets of the model hub that runs have read; may be emptied at any time."""
    return data_dir() / "cache" / "hub"


def secret_key_file() -> Path:
    """Django's secret key, where the environment sets none."""
    return data_dir() / "secret_key"


def remove_on_commit(path: Path) -> list[str]:
    """Remove a file or folder once the current transaction has committed; at once where there is none.

    A rollback then leaves rows and files, and a crash in between leaves files without a row, which `verify` lists; never
    a row without its files. Return a list that is filled on commit: a line ("path: reason") per file that was not removed.
    """
    not_removed: list[str] = []

    def remove_now() -> None:
        try:
            not_removed.extend(storage.remove(path))
        except OSError as error:
            not_removed.append(f"{path}: {error}")
        for line in not_removed:
            log.warning("A file could not be deleted: %s", line)

    transaction.on_commit(remove_now)
    return not_removed
