"""Where the installation keeps its files, each folder named once, and how files go with the rows that name them.

Functions and not constants: settings are read when they are asked, because tests and commands change them.
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
    a row without its files. Returns a list that will hold a line ("path: reason") for each file that the system kept.
    """
    left: list[str] = []

    def remove_now() -> None:
        try:
            left.extend(storage.remove(path))
        except OSError as error:
            left.append(f"{path}: {error}")
        for line in left:
            log.warning("The system kept a file that was to be deleted: %s", line)

    transaction.on_commit(remove_now)
    return left
