"""Tokenize texts into flat arrays of ids, cached on disk by their content so that each dataset is tokenized once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from engine.storage import write_file

if TYPE_CHECKING:  # heavy to import
    from transformers import PreTrainedTokenizerBase

CHUNK = 4096  # texts


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts, end to end.

    ids: (tokens,) int32; offsets: (texts + 1,) int64, where each text begins; truncated: texts that were too long.
    """

    ids: np.ndarray
    offsets: np.ndarray
    truncated: int

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return the tokens of each text: (texts,) int64."""
        return np.diff(self.offsets)

    @cached_property
    def longest(self) -> int:
        """Return the tokens of the longest text."""
        return int(self.lengths.max())

    def padded_length(self, length: int) -> int:
        """Round `length` up to one of eight lengths per doubling, but not above the longest text.

        oneDNN compiles and caches a kernel per shape of a matrix product. Without rounding there are so many shapes
        that a run is a fifth slower and takes 800 MiB more; rounding adds about 5 % of padding.
        """
        step = max(4, 2 ** (length.bit_length() - 4))
        return min(-(-length // step) * step, self.longest)

    def padded(self, rows: np.ndarray, pad: int, side: str = "right") -> tuple[np.ndarray, np.ndarray]:
        """Return ids and attention mask of some rows, each (rows, padded_length of the longest) int64.

        rows: (rows,) indexes of texts. pad: the id that fills shorter rows on that side, left or right; the mask is 0
        there and 1 elsewhere.
        """
        lengths = self.lengths[rows]
        columns = np.arange(self.padded_length(int(lengths.max())))[None]
        if side == "left":
            columns = columns - (columns.shape[1] - lengths[:, None])
        mask = (columns >= 0) & (columns < lengths[:, None])
        # Outside of a text, positions point at another one, and the mask hides what is read there.
        positions = np.clip(self.offsets[rows][:, None] + columns, 0, len(self.ids) - 1)
        return np.where(mask, self.ids[positions], pad).astype(np.int64), mask.astype(np.int64)


def tokenise(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, cache_dir: Path | None = None
) -> Tokens:
    """Return the token ids of `texts`, truncated to max_length with the special tokens kept.

    cache_dir: a folder for files of token ids, each named by the hash of all that the ids depend on. A file that is
    missing or damaged is written again. Raises DiskError if it cannot be written.
    """
    if cache_dir is None:
        return _tokenise(texts, tokenizer, max_length)
    # Increase the number in "tokens-2" when the format of the file changes, or what tokenizers are asked for.
    settings = (max_length, tokenizer.truncation_side, tokenizer.split_special_tokens, tokenizer.name_or_path)
    digest = hashlib.sha256(f"tokens-2:{settings}:".encode())
    if tokenizer.is_fast:
        # What an earlier call has left in the tokenizer is set anew by the next one.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
    else:
        digest.update(repr(tokenizer).encode())
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    path = cache_dir / f"{digest.hexdigest()}.safetensors"
    with suppress(OSError, SafetensorError, KeyError):
        arrays = load_file(path)
        return Tokens(arrays["ids"], arrays["offsets"], int(arrays["truncated"][0]))
    tokens = _tokenise(texts, tokenizer, max_length)
    arrays = {"ids": tokens.ids, "offsets": tokens.offsets, "truncated": np.array([tokens.truncated])}
    cache_dir.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda draft: save_file(arrays, draft))
    return tokens


def _tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokens:
    pieces: list[np.ndarray] = []
    truncated = 0
    for start in range(0, len(texts), CHUNK):
        chunk = list(texts[start : start + CHUNK])
        rows = _encode(chunk, tokenizer, max_length)
        # A row of exactly max_length may fit or be truncated; only these few are encoded again to find out.
        full = [text for text, row in zip(chunk, rows, strict=True) if len(row) == max_length]
        if full:
            truncated += sum(len(row) > max_length for row in _encode(full, tokenizer, None))
        pieces += [np.asarray(row, dtype=np.int32) for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
    return Tokens(np.concatenate(pieces), offsets, truncated)


def _encode(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> list[list[int]]:
    limits = {"truncation": True, "max_length": max_length} if max_length else {"truncation": False}
    encoded = tokenizer(texts, **limits, return_attention_mask=False, return_token_type_ids=False, verbose=False)
    return encoded["input_ids"]
