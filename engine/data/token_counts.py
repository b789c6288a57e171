"""Count the tokens of texts with the base model's own tokenizer, without keeping ids: quick enough for a million texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from engine.errors import BaseModelUnavailableError
from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 5000  # texts
# Pre-tokenizers that split at white space first: a word then has the same tokens in every text, and is counted once.
SPLITS_AT_SPACES = {"BertPreTokenizer"}


def _load_fast_tokenizer(base: Path, name: str) -> Tokenizer:
    """Return the tokenizer of tokenizer.json or, without that file, what transformers makes of the others."""
    from tokenizers import Tokenizer  # deferred: only checks of data need it

    file = base / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            raise BaseModelUnavailableError(
                Sentence(gettext_noop("The tokenizer.json of {name} can't be read."), name=name), field="model.name"
            ) from error
    from engine.models.text_encoding import load_tokenizer

    tokenizer = load_tokenizer(base, name)
    if not tokenizer.is_fast:
        raise BaseModelUnavailableError(
            Sentence(gettext_noop("The base model {name} has no fast tokenizer."), name=name), field="model.name"
        )
    return tokenizer.backend_tokenizer


class TokenCounter:
    """Counts tokens, special tokens included.

    base: folder of the base model `name`. Raises BaseModelUnavailableError if it has no fast tokenizer.
    """

    def __init__(self, base: Path, name: str) -> None:
        self.tokenizer = _load_fast_tokenizer(base, name)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True  # as training reads texts
        self.special_tokens = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        self.splits_at_spaces = type(self.tokenizer.pre_tokenizer).__name__ in SPLITS_AT_SPACES
        self.word_counts = pl.DataFrame(schema={"key": pl.UInt64, "tokens": pl.UInt32})

    def __call__(self, texts: pl.Series) -> np.ndarray:
        """Return the number of tokens of each text: (texts,) uint32."""
        if not texts.len():
            return np.zeros(0, dtype=np.uint32)
        if not self.splits_at_spaces:
            batches = [self._count(texts[start : start + BATCH]) for start in range(0, texts.len(), BATCH)]
            return np.concatenate(batches) + self.special_tokens
        # A text has the tokens of its words, and each word is tokenized once for all texts of this counter.
        words = texts.alias("word").to_frame().with_row_index("text")
        words = words.with_columns(pl.col("word").str.extract_all(r"\S+")).explode("word").drop_nulls("word")
        words = words.with_columns(pl.col("word").hash().alias("key"))
        new_words = words.unique("key").join(self.word_counts, on="key", how="anti")
        counts = [self._count(part["word"]) for part in new_words.iter_slices(BATCH)]
        if counts:
            tokens = pl.Series("tokens", np.concatenate(counts), dtype=pl.UInt32)
            self.word_counts = pl.concat([self.word_counts, new_words.select("key").with_columns(tokens)])
        sums = words.select("text", "key").join(self.word_counts, on="key").group_by("text").agg(pl.col("tokens").sum())
        totals = np.full(texts.len(), self.special_tokens, dtype=np.uint32)
        totals[sums["text"].to_numpy()] += sums["tokens"].to_numpy().astype(np.uint32)
        return totals

    def _count(self, texts: pl.Series) -> np.ndarray:
        encodings = self.tokenizer.encode_batch_fast(texts.to_list(), add_special_tokens=False)
        return np.fromiter((len(encoding) for encoding in encodings), dtype=np.uint32, count=len(encodings))
