"""Small, randomly initialised base models of the families that people use, with tokenizers of their own kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samples import reviews_zh, tweets_en
from testing.entity_texts import make_entity_texts
from testing.small_models import (
    ALBERT_SPECIAL,
    BERT_SPECIAL,
    ROBERTA_SPECIAL,
    character_tokenizer,
    save_model,
    train_bpe,
    train_unigram,
    train_wordpiece,
)

MPNET_SPECIAL = ROBERTA_SPECIAL | {"unk": "[UNK]"}
QWEN_SPECIAL = {"pad": "<|endoftext|>", "eos": "<|im_end|>"}
LONGEST = 128  # tokens
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": LONGEST + 2,  # RoBERTa's positions start after the padding index
    "initializer_range": 0.2,  # so that answers differ from text to text
}
DISTILBERT: dict[str, Any] = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "initializer_range": 0.2}
DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pooler_hidden_size": 32,
}
DEBERTA_V3: dict[str, Any] = {"position_buckets": 32, "norm_rel_ebd": "layer_norm", "share_att_key": True}


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of base model.

    config: name of its class in transformers, and the arguments. special: the tokenizer's special tokens by their role.
    tokenizer: name of its class in transformers.
    """

    config: str
    arguments: dict[str, Any]
    train_tokenizer: Callable[[list[str], dict[str, str]], Any]
    special: dict[str, str]
    tokenizer: str


FAMILIES = {
    "bert": Family("BertConfig", SIZES, train_wordpiece, BERT_SPECIAL, "BertTokenizer"),
    "bert-chinese": Family("BertConfig", SIZES, character_tokenizer, BERT_SPECIAL, "BertTokenizer"),
    "distilbert": Family("DistilBertConfig", DISTILBERT, train_wordpiece, BERT_SPECIAL, "DistilBertTokenizer"),
    "roberta": Family("RobertaConfig", SIZES | {"type_vocab_size": 1}, train_bpe, ROBERTA_SPECIAL, "RobertaTokenizer"),
    "xlm-roberta": Family(
        "XLMRobertaConfig", SIZES | {"type_vocab_size": 1}, train_unigram, ROBERTA_SPECIAL, "XLMRobertaTokenizer"
    ),
    "albert": Family("AlbertConfig", SIZES | {"embedding_size": 16}, train_unigram, ALBERT_SPECIAL, "AlbertTokenizer"),
    "electra": Family("ElectraConfig", SIZES | {"embedding_size": 16}, train_wordpiece, BERT_SPECIAL, "BertTokenizer"),
    "mpnet": Family("MPNetConfig", SIZES, train_wordpiece, MPNET_SPECIAL, "MPNetTokenizer"),
    "deberta-v2": Family("DebertaV2Config", SIZES | DEBERTA, train_unigram, BERT_SPECIAL, "DebertaV2Tokenizer"),
    "deberta-v3": Family(
        "DebertaV2Config", SIZES | DEBERTA | DEBERTA_V3, train_unigram, BERT_SPECIAL, "DebertaV2Tokenizer"
    ),
    "modernbert": Family(
        "ModernBertConfig",
        SIZES | {"global_attn_every_n_layers": 2, "local_attention": 16},
        train_bpe,
        BERT_SPECIAL,
        "PreTrainedTokenizerFast",
    ),
    "qwen3": Family(
        "Qwen3Config", SIZES | {"num_key_value_heads": 1, "head_dim": 16}, train_bpe, QWEN_SPECIAL, "Qwen2Tokenizer"
    ),
}


def save_family(name: str, folder: Path) -> None:
    """Write a small base model of a family, always the same one."""
    import torch
    import transformers

    family = FAMILIES[name]
    config = getattr(transformers, family.config)(**family.arguments)
    # A few hundred texts are enough for 2,000 tokens; a unigram tokenizer takes a second for each thousand.
    texts = [*tweets_en()["text"].gather_every(160), *reviews_zh()["text"].gather_every(400)]
    texts += [marked.text for marked in make_entity_texts(75, 1)]
    tokenizer = family.train_tokenizer(texts, family.special)
    torch.manual_seed(0)
    save_model(folder, config, tokenizer, family.special, family.tokenizer)
