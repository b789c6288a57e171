"""How many tokens each text has, by the base model's own tokenizer, without the ids: quick enough for a million texts.

A tokenizer that cuts at white space first (BERT's) counts each different word once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from engine.errors import BaseModelUnavailable

BATCH = 5000  # texts
CUTS_AT_SPACES = {"BertPreTokenizer"}


class TokenCounter:
    """Counts with the special tokens. Raises BaseModelUnavailable where the folder has no fast tokenizer."""

    def __init__(self, base: Path, name: str) -> None:
        from tokenizers import Tokenizer

        file = base / "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(file))
            kind = (json.loads(file.read_text(encoding="utf-8")).get("pre_tokenizer") or {}).get("type")
        except Exception as error:  # the library raises plain Exception
            raise BaseModelUnavailable(f"The base model {name} has no fast tokenizer.", field="model.name") from error
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.special = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        self.known = pl.DataFrame(schema={"key": pl.UInt64, "tokens": pl.UInt32})
        self.count: Callable[[pl.Series], np.ndarray] = self._by_word if kind in CUTS_AT_SPACES else self._by_text

    def __call__(self, texts: pl.Series) -> np.ndarray:
        """(texts,) uint32."""
        if not texts.len():
            return np.zeros(0, dtype=np.uint32)
        return self.count(texts)

    def _by_text(self, texts: pl.Series) -> np.ndarray:
        parts = [self._lengths(texts[at : at + BATCH]) for at in range(0, texts.len(), BATCH)]
        return np.concatenate(parts) + self.special

    def _by_word(self, texts: pl.Series) -> np.ndarray:
        words = texts.alias("word").to_frame().with_row_index("at")
        words = words.with_columns(pl.col("word").str.extract_all(r"\S+")).explode("word").drop_nulls("word")
        words = words.with_columns(pl.col("word").hash().alias("key"))
        self._learn(words.unique("key").join(self.known, on="key", how="anti"))
        counted = words.select("at", "key").join(self.known, on="key").group_by("at").agg(pl.col("tokens").sum())
        found = np.full(texts.len(), self.special, dtype=np.uint32)
        found[counted["at"].to_numpy()] += counted["tokens"].to_numpy().astype(np.uint32)
        return found

    def _learn(self, fresh: pl.DataFrame) -> None:
        lengths = [self._lengths(part["word"]) for part in fresh.iter_slices(BATCH)]
        if lengths:
            known = fresh.select("key").with_columns(pl.Series("tokens", np.concatenate(lengths), dtype=pl.UInt32))
            self.known = pl.concat([self.known, known])

    def _lengths(self, texts: pl.Series) -> np.ndarray:
        encoded = self.tokenizer.encode_batch_fast(texts.to_list(), add_special_tokens=False)
        return np.fromiter((len(one) for one in encoded), dtype=np.uint32, count=len(encoded))
