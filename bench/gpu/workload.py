"""Base models with random weights, and texts of random words, each of which is one token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.gpu.settings import Settings, Shape, TrainingSetting

if TYPE_CHECKING:
    from engine import Rows, Split

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
LABELS = ["negative", "neutral", "positive"]
EVAL_ROWS = 32


def make_base_model(shape: Shape, folder: Path, device: str, dropout: float = 0.1) -> None:
    """Write a base model without a head: config.json, model.safetensors in bf16 and a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(
        shape.model_type,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.longest + 2,  # RoBERTa's positions start at 2
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)
    model.base_model.save_pretrained(folder)
    _make_tokenizer(shape, folder)


def _make_tokenizer(shape: Shape, folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    words = (f"w{number}" for number in range(shape.vocabulary - len(SPECIAL)))
    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(SPECIAL[role], vocabulary[SPECIAL[role]]) for role in ("cls", "sep")]
    tokenizer.post_processor = TemplateProcessing(single=f"{SPECIAL['cls']} $A {SPECIAL['sep']}", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {f"{role}_token": token for role, token in SPECIAL.items()}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.longest}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def training_rows(setting: TrainingSetting, settings: Settings, seed: int = 0) -> Rows:
    """Return the rows of a training: texts whose lengths vary as real ones do, around the setting's mean."""
    return make_rows(setting.shape, setting.tokens, setting.rows * settings.epoch_steps, settings.spread, seed)


def make_rows(shape: Shape, tokens: int, count: int, spread: float, seed: int = 0) -> Rows:
    """Return rows whose lengths in tokens, special ones included, are log-normal with the mean `tokens`.

    spread: standard deviation of a length's logarithm.
    """
    from engine import Rows

    generator = np.random.default_rng(seed)
    return Rows(
        LABELS,
        train=_make_split(shape, tokens, count, spread, generator),
        eval=_make_split(shape, tokens, EVAL_ROWS, spread, generator),
    )


def _make_split(shape: Shape, tokens: int, count: int, spread: float, generator: np.random.Generator) -> Split:
    """Each label has words of its own, so that there is something to learn."""
    from engine import Split

    lengths = generator.lognormal(np.log(tokens) - spread**2 / 2, spread, count).round()
    words = lengths.clip(4, shape.longest).astype(int) - 2  # without the two special tokens
    labels = generator.integers(len(LABELS), size=count)
    own = (shape.vocabulary - len(SPECIAL)) // len(LABELS)
    texts = [
        " ".join(f"w{word}" for word in label * own + generator.integers(own, size=length))
        for length, label in zip(words, labels, strict=True)
    ]
    return Split(texts, labels.astype(np.int64))
