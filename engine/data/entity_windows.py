"""Cut texts into overlapping windows of tokens, and find for each token where it stands in its text.

Places are counted in Unicode code points, as Python's strings and the datasets' spans count. Training and serving cut with
the same functions, on the `tokenizers` library alone.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.data.token_cache import Arrays, hash_texts, load_or_compute
from engine.data.tokens import Tokens
from engine.errors import BaseModelUnavailableError
from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:  # heavy to import
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

CHUNK = 4096  # texts
ARRAYS = ("ids", "offsets", "rows", "counted", "spans", "text_starts")  # of Windows
OVERLAP = 4  # neighbouring windows share at least this part of a window: a quarter
WHITE_SPACE = np.array([code for code in range(0x3001) if chr(code).isspace()], dtype=np.uint32)
# What belongs to the character before it, beside the marks of Unicode: joiners, vowels and final consonants of Hangul,
# and the tags of flags. The first mark is U+0300.
JOINERS = "\u200c\u200d"
TRAILING = ((0x1160, 0x11FF), (0xD7B0, 0xD7FF), (0xE0020, 0xE007F))
FIRST_MARK = 0x300


@dataclass(frozen=True, kw_only=True)
class Windows(Tokens):
    """The windows of many texts, end to end, and which of their tokens count. What Tokens calls a text is a window here.

    rows: (windows,) int64, the text of each window, ascending; each text has at least one.
    counted: (counted tokens,) int64 indexes into ids, ascending by text and place. Of a token that lies in several windows,
        the occurrence with the most context counts. Special tokens and mere white space never count.
    spans: (counted tokens, 2) int64, where each counted token starts and ends in its text, without white space around it.
    text_starts: (texts + 1,) int64, where each text begins in `counted`.
    """

    rows: np.ndarray
    counted: np.ndarray
    spans: np.ndarray
    text_starts: np.ndarray

    @cached_property
    def counted_starts(self) -> np.ndarray:
        """Return where each window begins in `counted`, which is ascending: (windows + 1,) int64."""
        return np.searchsorted(self.counted, self.offsets)

    @cached_property
    def is_counted(self) -> np.ndarray:
        """Return whether each token counts: (tokens,) bool."""
        is_counted = np.zeros(len(self.ids), dtype=bool)
        is_counted[self.counted] = True
        return is_counted

    def counted_of(self, windows: np.ndarray) -> np.ndarray:
        """Return the indexes in `counted` of the tokens of some windows, window by window."""
        starts = self.counted_starts[windows]
        counts = self.counted_starts[windows + 1] - starts
        return np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)

    def text_of_counted(self) -> np.ndarray:
        """Return the text of each counted token: (counted tokens,) int64."""
        return np.repeat(np.arange(len(self.text_starts) - 1), np.diff(self.text_starts))


def tokenizer_with_places(tokenizer: PreTrainedTokenizerBase, name: str) -> Tokenizer:
    """Return a copy of the fast part of a tokenizer, which tells where tokens stand. Nobody else changes its settings.

    name: what the error calls the base model. Raises BaseModelUnavailableError if there is only a slow part.
    """
    from tokenizers import Tokenizer  # deferred until a model is loaded

    if not tokenizer.is_fast:
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop(
                    "The tokenizer of {name} does not tell where in a text its tokens stand, so the model can't learn "
                    "entities. Choose a base model whose folder has a tokenizer.json."
                ),
                name=name,
            ),
            field="model.name",
        )
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = tokenizer.split_special_tokens
    return copy


def cut_into_windows(
    texts: Sequence[str], tokenizer: Tokenizer, max_length: int, cache_dir: Path | None = None
) -> Windows:
    """Tokenise texts into windows of at most `max_length` tokens, with special tokens.

    The windows of a text are equally long and about equally far apart, so that no last one has little context.
    tokenizer: without truncation and padding. cache_dir: a folder for files of windows, each named by the hash of all that
    they depend on. Raises DiskError if such a file cannot be written.
    """
    if cache_dir is None:
        return _cut_into_windows(texts, tokenizer, max_length)
    # Increase the number in "windows-1" when anything here cuts, counts or places tokens differently.
    digest = hashlib.sha256(f"windows-1:{max_length}:{tokenizer.encode_special_tokens}:".encode())
    digest.update(tokenizer.to_str().encode())
    hash_texts(digest, texts)

    def compute() -> Arrays:
        windows = _cut_into_windows(texts, tokenizer, max_length)
        return {name: getattr(windows, name) for name in ARRAYS}

    arrays = load_or_compute(cache_dir / f"{digest.hexdigest()}.safetensors", ARRAYS, compute)
    return Windows(truncated=0, **{name: arrays[name] for name in ARRAYS})


def _cut_into_windows(texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> Windows:
    pieces: list[np.ndarray] = []  # of token ids
    lengths: list[int] = []
    rows: list[int] = []
    counted: list[np.ndarray] = []
    spans: list[np.ndarray] = []
    window_start = 0  # among all tokens
    for first in range(0, len(texts), CHUNK):
        chunk = list(texts[first : first + CHUNK])
        encodings = tokenizer.encode_batch(chunk, add_special_tokens=False)
        before, after = _special_ids(tokenizer, max(encodings, key=len))
        size = max(1, max_length - len(before) - len(after))
        for row, text_spans in enumerate(_refine_spans(chunk, encodings)):
            ids = np.array(encodings[row].ids, dtype=np.int32)
            places = np.empty(len(ids), dtype=np.int64)  # of the occurrences that count, among all tokens
            starts = window_starts(len(ids), size)
            for number, start in enumerate(starts):
                window = ids[start : start + size]
                # From the middle of the overlap on, this window has more context than the one before.
                own = (start + starts[number - 1] + size) // 2 if number else 0
                places[own:] = np.arange(own, len(ids)) - start + window_start + len(before)
                pieces += [before, window, after]
                lengths.append(len(before) + len(window) + len(after))
                rows.append(first + row)
                window_start += lengths[-1]
            is_solid = text_spans[:, 0] < text_spans[:, 1]
            counted.append(places[is_solid])
            spans.append(text_spans[is_solid])
    return Windows(
        ids=np.concatenate(pieces),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        truncated=0,
        rows=np.array(rows, dtype=np.int64),
        counted=np.concatenate(counted),
        spans=np.concatenate(spans),
        text_starts=np.cumsum([0, *map(len, counted)], dtype=np.int64),
    )


def window_starts(length: int, size: int) -> list[int]:
    """Return where the windows of a text of `length` tokens start, each of `size` tokens, or all of a shorter text."""
    if length <= size:
        return [0]
    overlap = size // OVERLAP
    windows = -(-(length - overlap) // (size - overlap))
    return [number * (length - size) // (windows - 1) for number in range(windows)]


def _special_ids(tokenizer: Tokenizer, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Return the special tokens before and after every text, int32 each, as the tokenizer puts them around this encoding."""
    complete = tokenizer.post_process(encoding)
    ids = np.array(complete.ids, dtype=np.int32)
    own = np.flatnonzero(np.array(complete.special_tokens_mask) == 0)
    if not len(own):
        return ids, ids[:0]
    return ids[: own[0]], ids[own[-1] + 1 :]


def _refine_spans(texts: list[str], encodings: list[Encoding]) -> list[np.ndarray]:
    """Return each text's token spans, (tokens, 2) int64, without white space around them and with whole characters.

    A tokenizer may count the blank before a word to the word, and drop accents and joiners, so that no token covers them.
    What is only white space gets an empty span.
    """
    counts = np.array([len(encoding) for encoding in encodings])
    lengths = np.array([len(text) for text in texts])
    text_starts = np.cumsum(lengths) - lengths  # in the code points of all texts, end to end
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    places = [place for encoding in encodings for place in encoding.offsets]
    spans = np.array(places, dtype=np.int64).reshape(-1, 2) + np.repeat(text_starts, counts)[:, None]

    # From the first character to the last one that are no white space.
    solid = np.append(np.flatnonzero(~np.isin(codes, WHITE_SPACE)), len(codes))
    first = np.searchsorted(solid, spans[:, 0])
    last = np.searchsorted(solid, spans[:, 1]) - 1
    is_solid = first <= last
    starts = np.where(is_solid, solid[first], spans[:, 0])
    ends = np.where(is_solid, solid[last] + 1, spans[:, 0])

    # Up to the next token, what no token covers but belongs to the character before.
    tokens = np.flatnonzero(is_solid)
    limits = np.minimum(np.append(starts[tokens][1:], len(codes)), np.repeat(text_starts + lengths, counts)[tokens])
    uncovered = ends[tokens] < limits
    for token, limit in zip(tokens[uncovered], limits[uncovered], strict=True):
        while ends[token] < limit and _extends(int(codes[ends[token]])):
            ends[token] += 1
    refined = np.stack([starts, ends], axis=1) - np.repeat(text_starts, counts)[:, None]
    return np.split(refined, np.cumsum(counts)[:-1])


def _extends(code: int) -> bool:
    """Return whether a code point belongs to the character before it: an accent, a joiner, a variation selector."""
    if code < FIRST_MARK:  # the blank after a word, nearly always
        return False
    if unicodedata.category(chr(code)).startswith("M") or chr(code) in JOINERS:
        return True
    return any(low <= code <= high for low, high in TRAILING)
