"""Final models without training: random adapters as PEFT writes them, and what plain PEFT says with them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from samples import SAMPLE_BASE_MODEL, base_model_path

LENGTH = 24


def make_adapter(folder: Path, labels: Sequence[str], seed: int, base: Path | None = None, **lora: Any) -> Path:
    """A final_model folder over the sample base model, or over the base model in a folder (named by the folder)."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoTokenizer

    source = base or base_model_path()
    config: dict[str, Any] = {"r": 4, "target_modules": ["query", "value"], "exclude_modules": ["classifier"]} | lora
    torch.manual_seed(seed)
    model: Any = get_peft_model(classifier(source, len(labels)), LoraConfig(task_type=TaskType.SEQ_CLS, **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    card = {"base_model": base.name if base else SAMPLE_BASE_MODEL, "labels": list(labels), "max_length": LENGTH}
    (folder / "lorasite.json").write_text(json.dumps(card))
    return folder


def classifier(source: Path, labels: int) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels, ignore_mismatched_sizes=True)


def plain_peft(folder: Path, texts: list[str], base: Path | None = None) -> list[list[float]]:
    """(texts, labels) probabilities, each text alone, by transformers and PEFT."""
    model, tokenizer = loaded(folder, base or base_model_path())
    found = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**inputs).logits[0].softmax(-1).tolist())
    return found


@cache
def loaded(folder: Path, base: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoTokenizer

    labels = len(json.loads((folder / "lorasite.json").read_text())["labels"])
    return PeftModel.from_pretrained(classifier(base, labels), folder).eval(), AutoTokenizer.from_pretrained(folder)
