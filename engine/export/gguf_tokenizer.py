"""Describe a byte-level or SentencePiece tokenizer as a GGUF file has it. Of others, llama.cpp would make other tokens."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerBase

from engine.errors import ExportRefusedError
from engine.sentences import Sentence, gettext_noop

# The patterns that cut a text into words, by llama.cpp's name of what uses them.
SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
PIECES = "llama"  # llama.cpp's name of SentencePiece, which merges the pair of pieces whose piece has the highest score
READ_BY_TRANSFORMERS = ("gpt-2", "llama-bpe", "qwen2")  # which builds a tokenizer from a GGUF file with the same words

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
KEEPS_SPACES = ("<unk>", "<s>", "<|endoftext|>")  # special tokens of Phi-3 behind which spaces stay
SPACES_ALONE = [("Replace", " ▁")]
SPACES_AND_ONE_BEFORE = [("Prepend", "▁"), ("Replace", " ▁")]


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """What a GGUF file says about a tokenizer.

    words: llama.cpp's name of how texts are cut into words, PIECES for SentencePiece. tokens, types: by id; merges: in their order.
    scores: of SentencePiece's tokens by id, in place of merges. end_id: of the token that ends an answer.
    """

    words: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    special_ids: dict[str, int]
    adds_bos: bool
    end_id: int
    chat_template: str
    scores: list[float]
    adds_space: bool

    @classmethod
    def describe(
        cls, tokenizer: PreTrainedTokenizerBase, folder: Path, name: str, vocabulary: int, end_id: int
    ) -> GgufTokenizer:
        """Describe the tokenizer in a folder. name, vocabulary: of the model, which may have more ids than the tokenizer.

        Raises ExportRefusedError.
        """
        content = read_tokenizer_json(folder)
        words = name_of_words(content, name)
        tokens = [f"[PAD{number}]" for number in range(vocabulary)]
        types = [TokenType.UNUSED] * vocabulary
        for token, number in tokenizer.get_vocab().items():
            tokens[number], types[number] = token, TokenType.NORMAL
        for number, added in tokenizer.added_tokens_decoder.items():
            types[number] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
        for number, token in enumerate(tokens):
            if words == PIECES and BYTE.fullmatch(token):
                types[number] = TokenType.BYTE
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
        scores: list[float] = []
        if words == PIECES:  # the earlier a token is made, the higher is its score
            made = dict.fromkeys(merge.replace(" ", "") for merge in merges)
            rank = {token: number for number, token in enumerate(made)}
            scores = [-float(rank.get(token, len(rank))) for token in tokens]
        names = {"bos": tokenizer.bos_token_id, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
        return cls(
            words,
            tokens,
            types,
            merges,
            {name: number for name, number in names.items() if number is not None},
            adds_bos=tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id],
            end_id=end_id,
            chat_template=str(tokenizer.chat_template),
            scores=scores,
            adds_space=words == PIECES and normalizer_steps(content) == SPACES_AND_ONE_BEFORE,
        )

    def write(self, writer: GGUFWriter) -> None:
        """Add the description to a file's metadata."""
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.words == PIECES:
            writer.add_tokenizer_model(PIECES)
            writer.add_tokenizer_pre("default")
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.adds_space)
        else:
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(self.words)
            writer.add_token_merges(self.merges)
        for name, number in self.special_ids.items():
            getattr(writer, f"add_{name}_token_id")(number)
        writer.add_eos_token_id(self.end_id)  # programs stop there
        writer.add_add_bos_token(self.adds_bos)
        writer.add_chat_template(self.chat_template)


def read_tokenizer_json(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's tokenizer.json."""
    content: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return content


def name_of_words(content: dict[str, Any], name: str) -> str:
    """Return llama.cpp's name of how a tokenizer cuts texts into words. content: of its tokenizer.json. name: of the base model.

    Raises ExportRefusedError if llama.cpp has none that is exactly the same.
    """
    if is_sentencepiece(content) and strips_as_llama_cpp(content["added_tokens"], name):
        return PIECES
    pre_tokenizer: dict[str, Any] = content.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    normalizer = (content.get("normalizer") or {}).get("type")
    is_byte_level = content["model"]["type"] == "BPE" and steps[-1].get("type") == "ByteLevel"
    if is_byte_level and not steps[-1].get("add_prefix_space") and normalizer in (None, "NFC"):
        use_regex = steps[-1].get("use_regex", True)
        first = steps[0]
        if len(steps) == 1 and use_regex:
            return "gpt-2"
        if len(steps) == 2 and first["type"] == "Digits" and first.get("individual_digits") and use_regex:
            return "smollm"
        pattern = first.get("pattern", {}).get("Regex")
        if len(steps) == 2 and pattern in SPLITS and not use_regex:
            return SPLITS[pattern]
    raise ExportRefusedError(
        Sentence(
            gettext_noop(
                "The base model's tokenizer can't be written to GGUF exactly: only byte-level ones of GPT-2, Llama 3, Qwen 2 and "
                "SmolLM, and SentencePiece ones of Llama 2, Mistral and Gemma can. Export to safetensors or peft."
            )
        )
    )


def is_sentencepiece(content: dict[str, Any]) -> bool:
    """Return whether llama.cpp cuts texts as this tokenizer does when it merges pieces by their scores.

    All characters must have a token or bytes; spaces become "▁", perhaps with one before each text; each token must be
    made by all pairs of tokens that it can be cut into.
    """
    model = content["model"]
    if model["type"] != "BPE" or not model.get("byte_fallback") or model.get("ignore_merges"):
        return False
    if not all(f"<0x{byte:02X}>" in model["vocab"] for byte in range(256)):
        return False
    if normalizer_steps(content) not in (SPACES_ALONE, SPACES_AND_ONE_BEFORE):
        return False
    # Texts may be cut into no words before pieces are merged: at most at spaces, of which none is left.
    pre_tokenizer = content.get("pre_tokenizer")
    if pre_tokenizer and (pre_tokenizer.get("type") != "Split" or pre_tokenizer.get("pattern") != {"String": " "}):
        return False
    return has_all_merges(model, {token["content"] for token in content["added_tokens"]})


def strips_as_llama_cpp(added_tokens: list[dict[str, Any]], name: str) -> bool:
    """Return whether the same spaces beside special tokens are lost in llama.cpp: those behind a few tokens of Phi-3, by its name."""
    is_phi3 = is_called_phi3(name)
    if is_phi3 and not {"</s>", *KEEPS_SPACES} <= {token["content"] for token in added_tokens}:
        return False
    return all(
        token["rstrip"] == (is_phi3 and token["content"] not in KEEPS_SPACES)
        and not token["lstrip"]
        and not token["single_word"]
        for token in added_tokens
    )


def is_called_phi3(name: str) -> bool:
    """Return whether llama.cpp takes a model for Phi-3 by its name."""
    return "phi-3" in name.lower() or "phi3" in name.lower()


def normalizer_steps(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the steps of a normalizer as (type, what it adds or replaces)."""
    normalizer = content.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    return [
        (step.get("type", ""), step.get("prepend") or f"{step.get('pattern', {}).get('String')}{step.get('content')}")
        for step in steps
    ]


def has_all_merges(model: dict[str, Any], added: set[str]) -> bool:
    """Return whether tokens are made by all pairs of tokens that they can be cut into, one token after the other.

    added: tokens that are found as a whole.
    """
    pairs = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
    made = list(dict.fromkeys(left + right for left, right in pairs))
    in_order = [token for token, _group in groupby(left + right for left, right in pairs)]
    every = {
        (token[:at], token[at:])
        for token in model["vocab"]
        if token not in added and not BYTE.fullmatch(token)
        for at in range(1, len(token))
        if token[:at] in model["vocab"] and token[at:] in model["vocab"]
    }
    return in_order == made and every == set(pairs)
