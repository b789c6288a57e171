"""Keep the tokens of texts on disk, in files named by the hash of all that they depend on, so that a dataset is tokenised once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from engine.storage import write_file

if TYPE_CHECKING:
    import hashlib

Arrays = dict[str, np.ndarray]


def hash_texts(digest: hashlib._Hash, texts: Sequence[str]) -> None:
    """Add texts to a hash. They may hold anything, also what UTF-8 cannot encode."""
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")


def load_or_compute(path: Path, names: Sequence[str], compute: Callable[[], Arrays]) -> Arrays:
    """Return the arrays in a file, or compute and write them if the file is missing, damaged or lacks one of `names`.

    Raises DiskError if the file cannot be written.
    """
    with suppress(OSError, SafetensorError):
        arrays = load_file(path)
        if arrays.keys() >= set(names):
            return arrays
    arrays = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda draft: save_file(arrays, draft))
    return arrays
