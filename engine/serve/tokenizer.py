"""Turn texts into token ids, for many threads at once: a tokenizer's settings never change after it was loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock
from typing import Any

MEMORY_FACTOR = 16  # bytes in memory per byte of tokenizer.json; measured on BERT's and on a BPE tokenizer


class ServedTokenizer:
    """A final model's tokenizer: the fast one of tokenizer.json, or without that file the slow one of transformers."""

    def __init__(self, folder: Path) -> None:
        self._lock = Lock()
        self._fast: Any = None
        self._slow: Any = None
        if (folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer  # deferred until a model is loaded

            self._fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._fast.no_truncation()
            self._fast.no_padding()
        else:
            from engine.models.loading import load_tokenizer  # deferred: imports torch

            self._slow = load_tokenizer(folder, "the model")

    def encode(self, texts: list[str], max_length: int) -> list[tuple[list[int], bool]]:
        """Return each text's ids with its special tokens, at most max_length, and whether the text was truncated."""
        if self._fast is None:
            # transformers sets truncation on the tokenizer, hence the lock.
            with self._lock:
                one_more = self._slow(texts, truncation=True, max_length=max_length + 1)["input_ids"]
                ids_of_texts = self._slow(texts, truncation=True, max_length=max_length)["input_ids"]
            return [(ids, len(longer) > max_length) for ids, longer in zip(ids_of_texts, one_more, strict=True)]
        # Truncation and padding are settings of the tokenizer itself, so threads must not use them: cut by hand.
        most_tokens = max_length - self._fast.num_special_tokens_to_add(False)
        encoded = []
        for encoding in self._fast.encode_batch(texts, add_special_tokens=False):
            truncated = len(encoding) > most_tokens
            if truncated:
                encoding.truncate(most_tokens)
            encoded.append((self._fast.post_process(encoding).ids, truncated))
        return encoded


def tokenizer_key(folder: Path) -> tuple[str, int]:
    """Return a value that is equal for folders with the same tokenizer, and about how many bytes of memory it takes."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return str(folder), 0
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), MEMORY_FACTOR * len(content)
