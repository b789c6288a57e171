"""Build final models without training: random adapters as PEFT writes them, and what plain PEFT predicts with them."""

import json
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch

from engine.models.text_encoding import prepare_encoding
from samples import SAMPLE_BASE_MODEL, base_model_path

MAX_LENGTH = 24


def make_adapter(
    folder: Path,
    labels: Sequence[str],
    seed: int,
    base: Path | None = None,
    *,
    task: str = "sequence_classification",
    text_pairs: bool = False,
    answers: dict[str, Any] | None = None,
    **lora: Any,
) -> Path:
    """Fill a final_model folder over the sample base model, or over the one in the folder `base`, whose name goes into lorasite.json.

    task, text_pairs, answers: see ModelInfo; scores have no labels. lora: arguments of PEFT's LoraConfig.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoTokenizer

    source = base or base_model_path()
    config: dict[str, Any] = {"r": 4, "target_modules": ["query", "value"], "exclude_modules": ["classifier"]} | lora
    count = len(labels) or 1
    torch.manual_seed(seed)
    classifier = load_classifier(base, count) if base else deepcopy(load_sample_classifier(count))
    model: Any = get_peft_model(classifier, LoraConfig(task_type=TaskType.SEQ_CLS, **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:  # PEFT starts B at zero, and the adapter would do nothing
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    info = {
        "base_model": base.name if base else SAMPLE_BASE_MODEL,
        "labels": list(labels),
        "id2label": dict(enumerate(labels or ["score"])),
        "max_length": MAX_LENGTH,
        "task": task,
        "text_pairs": text_pairs,
        "token_types": text_pairs and prepare_encoding(source, source.name, MAX_LENGTH).token_types,
        "answers": answers or {},
    }
    (folder / "lorasite.json").write_text(json.dumps(info))
    return folder


def predict_with_plain_peft(folder: Path, texts: list[str], base: Path | None = None) -> list[list[float]]:
    """Return (texts, labels) probabilities by transformers and PEFT, each text computed alone."""
    logits = logits_of_plain_peft(folder, texts, base=base)
    probabilities: list[list[float]] = (logits / temperature_of(folder)).softmax(-1).tolist()
    return probabilities


def logits_of_plain_peft(
    folder: Path, texts: list[str], text_pairs: list[str] | None = None, base: Path | None = None
) -> torch.Tensor:
    """Return the logits by transformers and PEFT, each text, or pair of texts, computed alone: (texts, outputs)."""
    model, tokenizer = load_with_plain_peft(folder, base or base_model_path())
    seconds: Sequence[str | None] = text_pairs or [None] * len(texts)
    logits = []
    for text, second in zip(texts, seconds, strict=True):
        inputs = tokenizer(text, second, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.inference_mode():
            logits.append(model(**inputs).logits[0])
    return torch.stack(logits)


def temperature_of(folder: Path) -> float:
    """Return what the logits of a final_model folder are divided by before softmax."""
    answers = json.loads((folder / "lorasite.json").read_text()).get("answers", {})
    return float(answers.get("temperature", 1.0))


@cache
def load_with_plain_peft(folder: Path, base: Path) -> tuple[Any, Any]:
    """Return the model and the tokenizer of a final_model folder, loaded once per process."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    label_count = len(json.loads((folder / "lorasite.json").read_text())["labels"])
    model = PeftModel.from_pretrained(load_classifier(base, label_count or 1), folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@cache
def load_sample_classifier(label_count: int) -> Any:
    """Return the sample base model with a head of `label_count` labels, loaded once per process: it takes 0.1 s."""
    return load_classifier(base_model_path(), label_count)


def load_classifier(source: Path, label_count: int) -> Any:
    """Return the base model in a folder with a new head of `label_count` labels."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=label_count, ignore_mismatched_sizes=True
    )
