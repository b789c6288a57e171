"""Texts to token ids, for many threads at once: a tokenizer's settings are never changed after it was read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock
from typing import Any

MEMORY = 16  # times the size of tokenizer.json; measured on BERT's and on BPE


class Tokenizer:
    """A final model's tokenizer."""

    def __init__(self, folder: Path) -> None:
        self._lock = Lock()
        self._fast: Any = None
        self._slow: Any = None
        if (folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer as Fast

            self._fast = Fast.from_file(str(folder / "tokenizer.json"))
            self._fast.no_truncation()
            self._fast.no_padding()
        else:
            from transformers import AutoTokenizer

            self._slow = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)

    def encode(self, texts: list[str], max_length: int) -> list[tuple[list[int], bool]]:
        """Ids of each text with its special tokens, at most max_length, and whether its end was left out."""
        if self._fast is None:
            return self._encode_slowly(texts, max_length)
        room = max_length - self._fast.num_special_tokens_to_add(False)
        found = []
        for encoding in self._fast.encode_batch(texts, add_special_tokens=False):
            cut = len(encoding) > room
            if cut:
                encoding.truncate(room)
            found.append((self._fast.post_process(encoding).ids, cut))
        return found

    def _encode_slowly(self, texts: list[str], max_length: int) -> list[tuple[list[int], bool]]:
        with self._lock:
            whole = self._slow(texts, truncation=True, max_length=max_length + 1)["input_ids"]
            cut = self._slow(texts, truncation=True, max_length=max_length)["input_ids"]
        return [(ids, len(all_ids) > max_length) for ids, all_ids in zip(cut, whole, strict=True)]


def identity(folder: Path) -> tuple[str, int]:
    """Equal for folders with the same tokenizer, and about how many bytes of memory it takes."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return str(folder), 0
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), MEMORY * len(content)
