"""Base models of the presets' four architectures, small, randomly initialised, each with a tokenizer trained on the samples.

The hub's models of these names can't be reached everywhere; these take their places under BASE_MODELS_DIR.
"""

from pathlib import Path
from typing import Any

from samples import reviews_zh, tweets_en

WIDTH, LAYERS, HEADS, LONGEST = 64, 2, 4, 128
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": LONGEST,
}  # fmt: skip
DISTILBERT: dict[str, Any] = {
    "dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 2 * WIDTH, "max_position_embeddings": LONGEST,
}  # fmt: skip
BERT_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_SPECIAL = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
ALBERT_SPECIAL = {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
NAMES = ("distilbert-base-uncased", "roberta-base", "albert-base-v2", "bert-base-chinese")


def build(root: Path) -> None:
    """One folder each, as the hub has them: config.json, model.safetensors, tokenizer.json."""
    import torch
    from transformers import AlbertConfig, BertConfig, DistilBertConfig, RobertaConfig

    english = tweets_en()["text"].gather_every(8).to_list()
    chinese = reviews_zh()["text"].gather_every(8).to_list()
    torch.manual_seed(0)
    made: tuple[tuple[Any, Any, dict[str, str], str], ...] = (
        (DistilBertConfig(**DISTILBERT), wordpiece(english), BERT_SPECIAL, "DistilBertTokenizer"),
        (RobertaConfig(**SIZES | {"max_position_embeddings": LONGEST + 2}), bpe(english), ROBERTA_SPECIAL, "RobertaTokenizer"),
        (AlbertConfig(**SIZES, embedding_size=32), unigram(english), ALBERT_SPECIAL, "AlbertTokenizer"),
        (BertConfig(**SIZES), characters(chinese), BERT_SPECIAL, "BertTokenizer"),
    )  # fmt: skip
    for name, (config, tokenizer, special, kind) in zip(NAMES, made, strict=True):
        save(root / name, config, tokenizer, special, kind)


def build_wide_chinese(folder: Path) -> None:
    """One layer of 256: random features of characters that a head can learn from, as nothing was pretrained."""
    import torch
    from transformers import BertConfig

    torch.manual_seed(0)
    texts = reviews_zh()["text"].gather_every(8).to_list()
    config = BertConfig(**SIZES | {"hidden_size": 256, "num_hidden_layers": 1, "intermediate_size": 512})
    save(folder, config, characters(texts), BERT_SPECIAL, "BertTokenizer")


def save(folder: Path, config: Any, tokenizer: Any, special: dict[str, str], kind: str) -> None:
    import json

    from transformers import AutoModel

    config.vocab_size, config.pad_token_id = tokenizer.get_vocab_size(), tokenizer.token_to_id(special["pad"])
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {f"{role}_token": token for role, token in special.items()}
    settings |= {"tokenizer_class": kind, "model_max_length": LONGEST}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def wordpiece(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = list(BERT_SPECIAL.values())
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=2000, special_tokens=special))
    return framed(tokenizer, BERT_SPECIAL)


def characters(texts: list[str]) -> Any:
    """As bert-base-chinese: every Chinese character is a token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    found = sorted({character for text in texts for character in text if not character.isspace()})
    vocabulary = {token: number for number, token in enumerate([*BERT_SPECIAL.values(), *found])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return framed(tokenizer, BERT_SPECIAL)


def bpe(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), list(ROBERTA_SPECIAL.values())
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, special_tokens=special)
    tokenizer.train_from_iterator(texts, trainer)
    return framed(tokenizer, ROBERTA_SPECIAL)


def unigram(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = list(ALBERT_SPECIAL.values())
    trainer = trainers.UnigramTrainer(vocab_size=2000, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    return framed(tokenizer, ALBERT_SPECIAL)


def framed(tokenizer: Any, special: dict[str, str]) -> Any:
    """Each text between its first and its last special token."""
    from tokenizers.processors import TemplateProcessing

    ends = [(special[role], tokenizer.token_to_id(special[role])) for role in ("cls", "sep")]
    tokenizer.post_processor = TemplateProcessing(single=f"{special['cls']} $A {special['sep']}", special_tokens=ends)
    return tokenizer
