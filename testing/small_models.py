"""Build small, randomly initialised base models of the presets' four architectures, with tokenizers trained on the sample data.

They stand in for the hub's models of these names, which can't be downloaded everywhere.
"""

import json
from pathlib import Path
from typing import Any

from samples import reviews_zh, tweets_en

WIDTH = 64
LAYERS = 2
HEADS = 4
LONGEST = 128  # tokens
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": LONGEST,
}
DISTILBERT_SIZES: dict[str, Any] = {
    "dim": WIDTH,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "hidden_dim": 2 * WIDTH,
    "max_position_embeddings": LONGEST,
}
BERT_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_SPECIAL = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
ALBERT_SPECIAL = {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
NAMES = ("distilbert-base-uncased", "roberta-base", "albert-base-v2", "bert-base-chinese")


def build_all(root: Path) -> None:
    """Write a folder for each, with the files that the hub has: config.json, model.safetensors, tokenizer.json."""
    import torch
    from transformers import AlbertConfig, BertConfig, DistilBertConfig, RobertaConfig

    english = tweets_en()["text"].gather_every(32).to_list()  # a thousand texts: a second of training a tokenizer
    chinese = reviews_zh()["text"].gather_every(8).to_list()
    torch.manual_seed(0)
    models: tuple[tuple[Any, Any, dict[str, str], str], ...] = (
        (DistilBertConfig(**DISTILBERT_SIZES), train_wordpiece(english), BERT_SPECIAL, "DistilBertTokenizer"),
        # RoBERTa's positions start after the padding index, so it needs two more of them.
        (
            RobertaConfig(**SIZES | {"max_position_embeddings": LONGEST + 2}),
            train_bpe(english),
            ROBERTA_SPECIAL,
            "RobertaTokenizer",
        ),
        (AlbertConfig(**SIZES, embedding_size=32), train_unigram(english), ALBERT_SPECIAL, "AlbertTokenizer"),
        (BertConfig(**SIZES), character_tokenizer(chinese), BERT_SPECIAL, "BertTokenizer"),
    )
    for name, (config, tokenizer, special, kind) in zip(NAMES, models, strict=True):
        save_model(root / name, config, tokenizer, special, kind)


def build_wide_chinese(folder: Path) -> None:
    """Write a model of one layer and width 256: its random features of characters are enough for a head to learn from."""
    import torch
    from transformers import BertConfig

    torch.manual_seed(0)
    texts = reviews_zh()["text"].gather_every(8).to_list()
    config = BertConfig(**SIZES | {"hidden_size": 256, "num_hidden_layers": 1, "intermediate_size": 512})
    save_model(folder, config, character_tokenizer(texts), BERT_SPECIAL, "BertTokenizer")


def save_model(folder: Path, config: Any, tokenizer: Any, special: dict[str, str], kind: str) -> None:
    """Write a randomly initialised model and its tokenizer.

    special: the tokenizer's special tokens by their role. kind: the tokenizer's class in transformers.
    """
    from transformers import AutoModel

    config.vocab_size = tokenizer.get_vocab_size()
    config.pad_token_id = tokenizer.token_to_id(special["pad"])
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {f"{role}_token": token for role, token in special.items()}
    settings |= {"tokenizer_class": kind, "model_max_length": LONGEST}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def train_wordpiece(texts: list[str], special: dict[str, str] = BERT_SPECIAL) -> Any:
    """Train a tokenizer as DistilBERT has it; MPNet's has other special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=2000, special_tokens=list(special.values()))
    tokenizer.train_from_iterator(texts, trainer)
    return add_special_tokens(tokenizer, special)


def character_tokenizer(texts: list[str], special: dict[str, str] = BERT_SPECIAL) -> Any:
    """Make every Chinese character a token, as bert-base-chinese does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    characters = sorted({character for text in texts for character in text if not character.isspace()})
    vocabulary = {token: number for number, token in enumerate([*special.values(), *characters])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return add_special_tokens(tokenizer, special)


def train_bpe(texts: list[str], special: dict[str, str] = ROBERTA_SPECIAL) -> Any:
    """Train a tokenizer as RoBERTa has it: byte pairs, without a normalizer. Qwen's puts no special tokens around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, special_tokens=list(special.values()))
    tokenizer.train_from_iterator(texts, trainer)
    return add_special_tokens(tokenizer, special) if "cls" in special else tokenizer


def train_unigram(texts: list[str], special: dict[str, str] = ALBERT_SPECIAL) -> Any:
    """Train a tokenizer as ALBERT has it; those of XLM-R and DeBERTa have other special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=2000, special_tokens=list(special.values()), unk_token=special["unk"])
    tokenizer.train_from_iterator(texts, trainer)
    return add_special_tokens(tokenizer, special)


def add_special_tokens(tokenizer: Any, special: dict[str, str]) -> Any:
    """Let the tokenizer put each text, and each of a pair of texts, between special tokens.

    RoBERTa has two of them between the texts of a pair, and no token types.
    """
    from tokenizers.processors import TemplateProcessing

    cls, sep = special["cls"], special["sep"]
    pair = f"{cls} $A {sep} {sep} $B {sep}" if cls == "<s>" else f"{cls} $A {sep} $B:1 {sep}:1"
    ends = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    tokenizer.post_processor = TemplateProcessing(single=f"{cls} $A {sep}", pair=pair, special_tokens=ends)
    return tokenizer
