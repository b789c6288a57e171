"""The hash of a base model's weights: it tells whether an adapter meets the weights that it was trained on."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from engine.models.weight_files import weight_files


def hash_base_weights(folder: Path, name: str) -> str:
    """Return the sha256 of the weights in a base model's folder, as hexadecimal digits.

    Hashes the files that transformers loads: a folder may hold others, such as a copy in another precision. They are read
    in full, at about 1.2 GB a second, because another fine-tuning may change only a few tensors. Each file is read once
    per process, until its size, time of change or inode changes.

    name: what errors call the base model. Raises BaseModelUnavailableError or BaseModelUnsafeError if it has no weights.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder, name):
        status = path.stat()
        content = _hash_file(path, status.st_size, status.st_mtime_ns, status.st_ino)
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _hash_file(path: Path, size: int, changed_at_ns: int, inode: int) -> str:
    """Return the sha256 of a file; the other arguments let a replaced file be read anew."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
