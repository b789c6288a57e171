"""Turn texts into token ids, for many threads at once: a tokenizer's settings never change after it was loaded."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

MEMORY_FACTOR = 16  # bytes in memory per byte of tokenizer.json; measured on BERT's and on a BPE tokenizer


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    """What tokenizer_config.json says beside tokenizer.json, as transformers writes both with a final model.

    padding_token: in its absence, the end-of-text token. split_special_tokens: a special token that stands in a text is
    read as text; models of earlier releases were trained without it.
    """

    truncation_side: str = "right"
    split_special_tokens: bool = False
    padding_token: str | None = None

    @classmethod
    def read(cls, folder: Path) -> TokenizerSettings:
        """Return the settings in a folder; the defaults without the file, or for what it lacks."""
        content: Any = {}
        with suppress(OSError, ValueError):
            content = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            return cls()
        token = content.get("pad_token") or content.get("eos_token")
        if isinstance(token, dict):  # an AddedToken
            token = token.get("content")
        return cls(
            truncation_side="left" if content.get("truncation_side") == "left" else "right",
            split_special_tokens=content.get("split_special_tokens") is True,
            padding_token=token if isinstance(token, str) else None,
        )


class ServedTokenizer:
    """A final model's tokenizer: the fast one of tokenizer.json, or without that file the slow one of transformers.

    padding_id: None if it has neither a padding token nor an end-of-text token.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = Lock()
        self._fast: Any = None
        self._slow: Any = None
        self.padding_id: int | None = None
        self.settings = TokenizerSettings.read(folder)
        if (folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer  # deferred until a model is loaded

            self._fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._fast.no_truncation()
            self._fast.no_padding()
            self._fast.encode_special_tokens = self.settings.split_special_tokens
            if self.settings.padding_token is not None:
                self.padding_id = self._fast.token_to_id(self.settings.padding_token)
        else:
            from engine.models.text_encoding import load_tokenizer  # deferred until a model is loaded

            self._slow = load_tokenizer(folder, "the model")
            self.padding_id = self._slow.pad_token_id

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
                encoding.truncate(most_tokens, direction=self.settings.truncation_side)
            encoded.append((self._fast.post_process(encoding).ids, truncated))
        return encoded


def tokenizer_key(folder: Path) -> tuple[str, int]:
    """Return a value that is equal for folders with the same tokenizer, and about how many bytes of memory it takes."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return str(folder), 0
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    digest.update(repr(TokenizerSettings.read(folder)).encode())
    return digest.hexdigest(), MEMORY_FACTOR * len(content)
