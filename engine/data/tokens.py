"""Tokenize texts into flat arrays of ids, cached on disk by their content so that each dataset is tokenized once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.data.token_cache import Arrays, hash_texts, load_or_compute

if TYPE_CHECKING:  # heavy to import
    from transformers import PreTrainedTokenizerBase

CHUNK = 4096  # texts


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts, end to end.

    ids: (tokens,) int32; offsets: (texts + 1,) int64, where each text begins; truncated: texts that were too long.
    types: (tokens,) int8, which of two texts a token belongs to; None for single texts, and for tokenizers without types.
    """

    ids: np.ndarray
    offsets: np.ndarray
    truncated: int
    types: np.ndarray | None = None

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
        positions, mask = self.places(rows, side)
        return np.where(mask, self.ids[positions], pad).astype(np.int64), mask.astype(np.int64)

    def padded_types(self, rows: np.ndarray, side: str = "right") -> np.ndarray | None:
        """Return the token types of some rows in the shape that `padded` gives them, 0 for padding; None without types."""
        if self.types is None:
            return None
        positions, mask = self.places(rows, side)
        return np.where(mask, self.types[positions], 0).astype(np.int64)

    def places(self, rows: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each place in the rectangle of some rows, the position of its token in `ids`, and whether it has one."""
        lengths = self.lengths[rows]
        columns = np.arange(self.padded_length(int(lengths.max())))[None]
        if side == "left":
            columns = columns - (columns.shape[1] - lengths[:, None])
        mask = (columns >= 0) & (columns < lengths[:, None])
        # Outside of a text, positions point at another one, and the mask hides what is read there.
        return np.clip(self.offsets[rows][:, None] + columns, 0, len(self.ids) - 1), mask


def tokenise(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    cache_dir: Path | None = None,
    text_pairs: Sequence[str] | None = None,
    token_types: bool = False,
) -> Tokens:
    """Return the token ids of `texts`, truncated to max_length with the special tokens kept.

    cache_dir: a folder for files of token ids, each named by the hash of all that the ids depend on. A file that is
    missing or damaged is written again. text_pairs: the second text of each; of a pair that is too long, the longer text is
    cut first. token_types: whether the model tells the two texts of a pair apart by them. Raises DiskError if the file
    cannot be written.
    """
    if cache_dir is None:
        return _tokenise(texts, tokenizer, max_length, text_pairs, token_types)
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
    hash_texts(digest, texts)
    if text_pairs is not None:
        digest.update(f"pairs:{token_types}:".encode())
        hash_texts(digest, text_pairs)

    def compute() -> Arrays:
        tokens = _tokenise(texts, tokenizer, max_length, text_pairs, token_types)
        arrays = {"ids": tokens.ids, "offsets": tokens.offsets, "truncated": np.array([tokens.truncated])}
        return arrays if tokens.types is None else arrays | {"types": tokens.types}

    path = cache_dir / f"{digest.hexdigest()}.safetensors"
    arrays = load_or_compute(path, ("ids", "offsets", "truncated"), compute)
    return Tokens(arrays["ids"], arrays["offsets"], int(arrays["truncated"][0]), arrays.get("types"))


def _tokenise(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    text_pairs: Sequence[str] | None,
    token_types: bool,
) -> Tokens:
    settings: dict[str, Any] = {
        "return_attention_mask": False,
        "return_token_type_ids": token_types and text_pairs is not None,
        "verbose": False,
    }
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    truncated = 0
    for start in range(0, len(texts), CHUNK):
        chunk = list(texts[start : start + CHUNK])
        pairs = None if text_pairs is None else list(text_pairs[start : start + CHUNK])
        encoded = tokenizer(chunk, pairs, truncation=True, max_length=max_length, **settings)
        # A row of exactly max_length may fit or be truncated; only these few are encoded again to find out.
        full = [row for row, row_ids in enumerate(encoded["input_ids"]) if len(row_ids) == max_length]
        if full:
            full_pairs = None if pairs is None else [pairs[row] for row in full]
            in_full = tokenizer([chunk[row] for row in full], full_pairs, truncation=False, **settings)
            truncated += sum(len(row_ids) > max_length for row_ids in in_full["input_ids"])
        ids += [np.asarray(row, dtype=np.int32) for row in encoded["input_ids"]]
        types += [np.asarray(row, dtype=np.int8) for row in encoded.get("token_type_ids", ())]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    return Tokens(np.concatenate(ids), offsets, truncated, np.concatenate(types) if types else None)
