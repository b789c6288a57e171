"""The hash of a base model's weights: it tells whether an adapter meets the weights that it was trained on."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path


def hash_base_weights(folder: Path) -> str:
    """Return the sha256 of the weights in a base model's folder, as hexadecimal digits.

    The whole files are read, at about 1.2 GB a second, because another fine-tuning may change only a few tensors. Each
    file is read once per process, until its size, time of change or inode changes.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder):
        status = path.stat()
        content = _hash_file(path, status.st_size, status.st_mtime_ns, status.st_ino)
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers loads: the single one, else the shards that its index names.

    A folder may hold others beside them, such as a copy of the weights in another precision.
    """
    single = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / Path(name).name for name in sorted(set(shards))]
    return sorted(folder.glob("*.safetensors"))


@lru_cache(maxsize=1024)
def _hash_file(path: Path, size: int, changed_at_ns: int, inode: int) -> str:
    """Return the sha256 of a file; the other arguments let a replaced file be read anew."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
