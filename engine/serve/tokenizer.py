"""Turn texts into token ids, for many threads at once: a tokenizer's settings never change after it was loaded."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.data.entity_windows import Windows

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
    mask_token: str | None = None

    @classmethod
    def read(cls, folder: Path) -> TokenizerSettings:
        """Return the settings in a folder; the defaults without the file, or for what it lacks."""
        content: Any = {}
        with suppress(OSError, ValueError):
            content = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            return cls()
        return cls(
            truncation_side="left" if content.get("truncation_side") == "left" else "right",
            split_special_tokens=content.get("split_special_tokens") is True,
            padding_token=_token_text(content.get("pad_token") or content.get("eos_token")),
            mask_token=_token_text(content.get("mask_token")),
        )


def _token_text(token: object) -> str | None:
    """Return the text of a special token of tokenizer_config.json, a string or the parts of an AddedToken."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text, or a pair of texts, as token ids with their special tokens. types: see BatchRow."""

    ids: list[int]
    truncated: bool
    types: list[int] | None = None


TokenPlace = tuple[int, int, int]  # which text of a pair, and start and end in it, in code points


class ServedTokenizer:
    """A final model's tokenizer: the fast one of tokenizer.json, or without that file the slow one of transformers.

    padding_id: None if it has neither a padding token nor an end-of-text token. neutral_id: of the token that stands for a
    text of which nothing is known: the mask where it has one, else the padding.
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
            self.neutral_id: int | None = None
            if self.settings.mask_token is not None:
                self.neutral_id = self._fast.token_to_id(self.settings.mask_token)
        else:
            from engine.models.text_encoding import load_tokenizer  # deferred until a model is loaded

            self._slow = load_tokenizer(folder, "the model")
            self.padding_id = self._slow.pad_token_id
            self.neutral_id = self._slow.mask_token_id
        if self.neutral_id is None:
            self.neutral_id = self.padding_id

    def encode(
        self, texts: list[str], max_length: int, text_pairs: list[str] | None = None, token_types: bool = False
    ) -> list[EncodedText]:
        """Return each text's ids with its special tokens, at most max_length.

        text_pairs: the second text of each. token_types: whether the model tells the two apart by types.
        """
        wants_types = token_types and text_pairs is not None
        if self._fast is None:
            return self._encode_slowly(texts, max_length, text_pairs, wants_types)
        return [
            EncodedText(encoding.ids, truncated, encoding.type_ids if wants_types else None)
            for encoding, truncated, _length in self._encode_fast(texts, max_length, text_pairs)
        ]

    def find_tokens(self, text: str, max_length: int, text_pair: str | None = None) -> list[TokenPlace | None]:
        """Return where each token that `encode` makes of a text, or of a pair, lies in it; None for special tokens.

        Raises LookupError without tokenizer.json: only fast tokenizers know.
        """
        if self._fast is None:
            raise LookupError("the tokenizer does not tell where its tokens lie")
        ((encoding, _truncated, length),) = self._encode_fast(
            [text], max_length, None if text_pair is None else [text_pair]
        )
        places: list[TokenPlace | None] = []
        own_tokens = 0  # of both texts, without special ones
        for is_special, (start, end) in zip(encoding.special_tokens_mask, encoding.offsets, strict=True):
            # What the encoding itself says of the first text is wrong once it was joined with a second one.
            places.append(None if is_special else (int(own_tokens >= length), start, end))
            own_tokens += not is_special
        return places

    def _encode_fast(
        self, texts: list[str], max_length: int, text_pairs: list[str] | None
    ) -> list[tuple[Any, bool, int]]:
        """Return the encoding of each text, or pair, with its special tokens, whether it was cut, and the first text's tokens."""
        # Truncation and padding are settings of the tokenizer itself, so threads must not use them: cut by hand.
        most_tokens = max_length - self._fast.num_special_tokens_to_add(text_pairs is not None)
        first_texts = self._fast.encode_batch(texts, add_special_tokens=False)
        second_texts: list[Any] = [None] * len(texts)
        if text_pairs is not None:
            second_texts = self._fast.encode_batch(text_pairs, add_special_tokens=False)
        encoded = []
        for first, second in zip(first_texts, second_texts, strict=True):
            truncated = self._truncate(first, second, most_tokens)
            length = len(first)
            encoded.append((self._fast.post_process(first, second), truncated, length))
        return encoded

    def encode_windows(self, texts: list[str], max_length: int) -> Windows:
        """Return the windows of texts, each of at most max_length tokens. Raises ValueError without a tokenizer.json."""
        from engine.data.entity_windows import cut_into_windows  # deferred: most models have no use for it

        if self._fast is None:
            raise ValueError("its tokenizer does not tell where tokens stand, because it has no tokenizer.json")
        return cut_into_windows(texts, self._fast, max_length)

    def _truncate(self, first: Any, second: Any, most_tokens: int) -> bool:
        """Cut encodings to `most_tokens` together, the longer one first, as the tokenizers library does; return whether it cut."""
        lengths = [len(first), 0 if second is None else len(second)]
        if sum(lengths) <= most_tokens:
            return False
        shorter, longer = sorted(lengths)
        longer = max(shorter, most_tokens - shorter) if shorter <= most_tokens else shorter
        if shorter + longer > most_tokens:
            shorter = most_tokens // 2
            longer = shorter + most_tokens % 2
        first_length, second_length = (longer, shorter) if lengths[0] > lengths[1] else (shorter, longer)
        if second is None:
            first_length = most_tokens
        else:
            second.truncate(second_length, direction=self.settings.truncation_side)
        first.truncate(first_length, direction=self.settings.truncation_side)
        return True

    def _encode_slowly(
        self, texts: list[str], max_length: int, text_pairs: list[str] | None, wants_types: bool
    ) -> list[EncodedText]:
        # transformers sets truncation on the tokenizer, hence the lock.
        with self._lock:
            one_more = self._slow(texts, text_pairs, truncation=True, max_length=max_length + 1)["input_ids"]
            encoded = self._slow(texts, text_pairs, truncation=True, max_length=max_length)
        types = encoded["token_type_ids"] if wants_types else [None] * len(texts)
        return [
            EncodedText(ids, len(longer) > max_length, types_of_text)
            for ids, longer, types_of_text in zip(encoded["input_ids"], one_more, types, strict=True)
        ]


def tokenizer_key(folder: Path) -> tuple[str, int]:
    """Return a value that is equal for folders with the same tokenizer, and about how many bytes of memory it takes."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return str(folder), 0
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    digest.update(repr(TokenizerSettings.read(folder)).encode())
    return digest.hexdigest(), MEMORY_FACTOR * len(content)
