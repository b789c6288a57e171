"""Decide how texts become token ids and batches: once, for training, evaluation and serving alike.

The tokenizer's files decide what is cut off and how a batch is filled up; the base model's config.json decides how long a text
may be. A base model that contradicts its tokenizer is refused here, before anything is trained.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.errors import BaseModelUnavailableError
from engine.events import Notice
from engine.models.weight_files import check_tokenizer
from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:  # importing transformers takes seconds
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from engine.data.tokens import Tokens

Side = Literal["left", "right"]
MANY_UNKNOWN = 0.2  # share of unknown tokens from which on a person is warned
# As in fairseq, the positions of these models start after the padding index, so that fewer of them are left for texts.
POSITIONS_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


@dataclass(frozen=True, slots=True)
class TextEncoding:
    """A base model's tokenizer, and how its batches are made.

    max_length: tokens of the longest text. padding_id: fills shorter rows, on `padding_side`. token_types: whether the model
    tells the two texts of a pair apart by the type of each token.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    padding_id: int
    padding_side: Side
    token_types: bool
    notices: list[Notice]

    def facts(self, tokens: Tokens) -> dict[str, Any]:
        """Return what metrics.json and lorasite.json say about the encoding; `tokens` are those of the training texts."""
        return {
            "max_length": self.max_length,
            "truncation_side": self.tokenizer.truncation_side,
            "padding_side": self.padding_side,
            "padding_id": self.padding_id,
            "token_types": self.token_types,
            "unknown_token_share": self.unknown_token_share(tokens),
        }

    def unknown_token_share(self, tokens: Tokens) -> float:
        """Return the share of unknown tokens, from 0 to 1, among those that are no special tokens around a text."""
        unknown = self.tokenizer.unk_token_id
        text_tokens = len(tokens.ids) - len(tokens.lengths) * self.tokenizer.num_special_tokens_to_add()
        if unknown is None or text_tokens <= 0:
            return 0.0
        return round(float(np.count_nonzero(tokens.ids == unknown) / text_tokens), 4)

    def notice_of_unknown_tokens(self, share: float) -> list[Notice]:
        """Return a warning if many of the training texts' tokens are unknown to the tokenizer."""
        if share <= MANY_UNKNOWN:
            return []
        message = Sentence(
            gettext_noop(
                "{share:.0%} of the tokens in the training texts are unknown to the tokenizer of {model}. "
                "The model can't tell them apart. Choose a base model for the language of the texts."
            ),
            share=share,
            model=self.name,
        )
        return [Notice("warning", "unknown_tokens", message)]


def prepare_encoding(folder: Path, name: str, longest_wanted: int) -> TextEncoding:
    """Return the encoding of the base model in a folder.

    name: what messages call it. longest_wanted: data.max_length; lowered, with a notice, to what the model can take.
    Raises BaseModelUnavailableError if its tokenizer is missing, can't be loaded or does not fit the model.
    """
    config = load_config(folder, name)  # first, because transformers reads it for the tokenizer too
    tokenizer = load_tokenizer(folder, name, split_special_tokens=True)
    _refuse_ids_without_embedding(tokenizer, config, name)
    limits = [limit for limit in (tokenizer.model_max_length, longest_text(config)) if limit is not None]
    max_length = min(longest_wanted, *limits)
    notices = []
    if max_length < longest_wanted:
        message = Sentence(
            gettext_noop(
                "Texts are truncated to {limit:,} tokens instead of data.max_length {wanted:,}: {model} takes no longer ones."
            ),
            limit=max_length,
            wanted=longest_wanted,
            model=name,
        )
        notices.append(Notice("warning", "max_length_lowered", message))
    token_types = has_token_types(config) and "token_type_ids" in tokenizer.model_input_names
    padding_id = _padding_id(tokenizer, name)
    return TextEncoding(name, tokenizer, max_length, padding_id, padding_side(config), token_types, notices)


def load_tokenizer(folder: Path, name: str, **options: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a folder, a fast one if there is any; `name` is what errors call its model.

    options: of the tokenizer. With split_special_tokens, a "</s>" that stands in a text is read as these four characters:
    it ends no text, pads nothing, and is saved so with the tokenizer.
    Raises BaseModelUnavailableError.
    """
    from transformers import AutoTokenizer  # deferred: takes seconds

    options |= {"use_fast": True, "trust_remote_code": False, "local_files_only": True}
    check_tokenizer(folder, name)
    try:
        return AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # each class of tokenizer raises errors of its own, the library below a plain Exception
        raise BaseModelUnavailableError(_loading_fault(folder, name, error), field="model.name") from error


def load_gguf_tokenizer(folder: Path, file: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer that a GGUF file of ours describes."""
    from transformers import AutoTokenizer  # deferred: takes seconds

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, gguf_file=file, trust_remote_code=False, local_files_only=True
    )
    return tokenizer


def longest_text(config: PretrainedConfig) -> int | None:
    """Return the tokens of the longest text that a model has positions for; None if it takes texts of any length."""
    config = config.get_text_config()
    positions = getattr(config, "max_position_embeddings", getattr(config, "max_seq_len", None))
    # XLNet says -1. DeBERTa without a table of positions knows only distances between tokens.
    if not isinstance(positions, int) or positions <= 0 or getattr(config, "position_biased_input", True) is False:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        return positions - (config.pad_token_id or 0) - 1
    return positions


def padding_side(config: PretrainedConfig) -> Side:
    """Return the side on which padding changes no answer.

    The tokenizer's own side is meant for generating text: padding on the left would shift the positions of BERT and GPT-2.
    Every classifier finds a text's first token, or its last one that is no padding; only XLNet's reads the last position.
    """
    return "left" if getattr(config, "summary_type", None) == "last" else "right"


def has_token_types(config: PretrainedConfig) -> bool:
    """Return whether a model has an embedding for the tokens of a second text. XLNet's is in its attention."""
    return (getattr(config, "type_vocab_size", None) or 0) > 1 or config.model_type == "xlnet"


def set_padding_id(model: PreTrainedModel, padding_id: int) -> None:
    """Let a classifier use the padding id that its batches are filled with.

    Decoders look for the last token that is no padding. config.json may name another one than the tokenizer, or none.
    """
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = padding_id


def load_config(folder: Path, name: str) -> PretrainedConfig:
    """Return a model's config.json as transformers reads it. Raises BaseModelUnavailableError."""
    from transformers import AutoConfig  # deferred: takes seconds

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the classes of configurations check their values, and raise errors of their own
        reason = " ".join(str(error).split()).replace(str(folder), name)[:200]
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop("The config.json of {name} can't be read by transformers: {reason}"),
                name=name,
                reason=reason,
            ),
            field="model.name",
        ) from error


def _padding_id(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    """Return the padding token's id; without one, the end-of-text token takes its place, also in the saved tokenizer."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise BaseModelUnavailableError(
                Sentence(
                    gettext_noop(
                        "The tokenizer of {name} has neither a padding token nor an end-of-text token, so its texts can't be put "
                        "into batches. Set pad_token in its tokenizer_config.json, or choose another base model."
                    ),
                    name=name,
                ),
                field="model.name",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return int(tokenizer.pad_token_id)


def _refuse_ids_without_embedding(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, name: str) -> None:
    """Raise BaseModelUnavailableError if a text may get a token that the model has no embedding for.

    Special tokens that a text never gets may lie outside: many tokenizers have such, and their models work.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(rows, int):
        return
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    used = {*tokenizer("")["input_ids"], tokenizer.pad_token_id, tokenizer.unk_token_id} - {None}
    largest = max(set(tokenizer.get_vocab().values()) - special | used)
    if largest >= rows:
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop(
                    "The tokenizer of {name} does not fit its model: it has token ids up to {largest:,}, and the model has "
                    "{rows:,} embeddings. Resize the model's embeddings, or choose another base model."
                ),
                name=name,
                largest=largest,
                rows=rows,
            ),
            field="model.name",
        )


def _loading_fault(folder: Path, name: str, error: Exception) -> str:
    """Return a sentence for a person about a tokenizer that can't be loaded."""
    package = _missing_package(folder, error)
    if package:
        return Sentence(
            gettext_noop(
                "The tokenizer of {name} needs the package {package}, which is not installed. Install it, or save the "
                "tokenizer as tokenizer.json where the package is, and put that file into the base model's folder."
            ),
            name=name,
            package=package,
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0].replace(str(folder), name)
    return Sentence(gettext_noop("The tokenizer of {name} can't be loaded: {reason}"), name=name, reason=reason[:300])


def _missing_package(folder: Path, error: Exception) -> str | None:
    """Return the name of the package whose absence is the cause of an error; None if it has another cause."""
    # transformers then asks for tiktoken, which can't read these files either.
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")) and not find_spec("sentencepiece"):
        return "sentencepiece"
    match = re.search(r"install (?:the package )?`?([\w-]+)", str(error)) if isinstance(error, ImportError) else None
    return match[1] if match else None
