"""Describe a byte-level tokenizer as a GGUF file has it. Others are refused: llama.cpp would cut texts into other tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
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
READ_BY_TRANSFORMERS = ("gpt-2", "llama-bpe", "qwen2")  # which builds a tokenizer from a GGUF file with the same words


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """What a GGUF file says about a tokenizer.

    words: llama.cpp's name of how texts are cut into words. tokens, types: by id; merges: in their order. end_id: of the token that
    ends an answer.
    """

    words: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    special_ids: dict[str, int]
    adds_bos: bool
    end_id: int
    chat_template: str

    @classmethod
    def describe(cls, tokenizer: PreTrainedTokenizerBase, folder: Path, vocabulary: int, end_id: int) -> GgufTokenizer:
        """Describe the tokenizer in a folder. vocabulary: of the model, which may have more ids than the tokenizer.

        Raises ExportRefusedError.
        """
        content = read_tokenizer_json(folder)
        words = name_of_words(content)
        tokens = [f"[PAD{number}]" for number in range(vocabulary)]
        types = [TokenType.UNUSED] * vocabulary
        for token, number in tokenizer.get_vocab().items():
            tokens[number], types[number] = token, TokenType.NORMAL
        for number, added in tokenizer.added_tokens_decoder.items():
            types[number] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
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
        )

    def write(self, writer: GGUFWriter) -> None:
        """Add the description to a file's metadata."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.words)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
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


def name_of_words(content: dict[str, Any]) -> str:
    """Return llama.cpp's name of how a tokenizer cuts texts into words. content: of its tokenizer.json.

    Raises ExportRefusedError if llama.cpp has none that is exactly the same.
    """
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
                "The base model's tokenizer can't be written to GGUF exactly: only byte-level ones of GPT-2, Llama 3, "
                "Qwen 2 and SmolLM can. Export to safetensors or peft."
            )
        )
    )
