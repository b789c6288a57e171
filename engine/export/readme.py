"""Write the README.md of an export: what it is, how it was compared, and a program that uses it."""

from __future__ import annotations

import json
from pathlib import Path

from engine.export.comparison import ExportCheck
from engine.serve.answers import EVEN
from engine.serve.model_files import ModelInfo
from engine.serve.predictor import LoadedModel

TRANSFORMERS = """\
import numpy as np
import torch
from transformers import {auto_class}, AutoTokenizer

folder = "."  # the folder of this file
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto_class}.from_pretrained(folder).eval()
inputs = tokenizer({texts}, truncation=True, max_length={max_length}, return_tensors="pt")
with torch.inference_mode():
    logits = model(**inputs).logits.numpy()
"""
ONNX = """\
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

folder = "."  # the folder of this file
tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
inputs = tokenizer({texts}, truncation=True, max_length={max_length}, return_tensors="np")
feeds = {{each.name: inputs[each.name].astype(np.int64) for each in session.get_inputs()}}
logits = session.run(["logits"], feeds)[0]
"""
ONE_LABEL = """\
labels = {labels}
exponents = np.exp((logits - logits.max(axis=-1, keepdims=True)) / {temperature})
probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
print(labels[probabilities[0].argmax()], probabilities[0])
"""
MANY_LABELS = """\
labels = {labels}
temperatures = np.array({temperatures})
thresholds = np.array({thresholds})
probabilities = 1 / (1 + np.exp(-logits / temperatures))
print([label for label, chosen in zip(labels, probabilities[0] >= thresholds) if chosen], probabilities[0])
"""
SCORE = """\
scores = logits[:, 0] * {deviation} + {mean}
print(scores[0])
"""
# Lorasite reads longer texts in windows, and chooses the likeliest tags that make whole entities.
TAGS = """\
tags = {labels}
for token, row in zip(inputs.tokens(), logits[0]):
    print(token, tags[row.argmax()])
"""


def write_readme(folder: Path, served: LoadedModel, check: ExportCheck) -> None:
    """Write README.md into an exported folder."""
    info = served.info
    text = (
        f"# {info.task.replace('_', ' ').capitalize()}, {check.format}\n\n"
        f"Exported from an adapter over `{info.base_model}`, which is merged into the weights. {check.sentence} "
        "export.json has these figures; lorasite.json has what was fitted on held-out rows, such as the temperature.\n\n"
        f"```python\n{program(folder, info, check.format)}```\n"
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def program(folder: Path, info: ModelInfo, format: str) -> str:
    """Return the program that answers a text as the served model does."""
    auto_class = "AutoModelForTokenClassification" if info.head == "token" else "AutoModelForSequenceClassification"
    texts = '"…", "…"' if info.text_pairs else '"…"'
    template = TRANSFORMERS if format == "safetensors" else ONNX
    head = template.format(auto_class=auto_class, texts=texts, max_length=info.max_length)
    return head + answer_program(folder, info)


def answer_program(folder: Path, info: ModelInfo) -> str:
    """Return the lines that turn logits into an answer, as engine.serve.answers does."""
    labels = json.dumps(list(info.labels), ensure_ascii=False)
    if info.task == "regression":
        return SCORE.format(deviation=info.score_deviation, mean=info.score_mean)
    if info.task == "multi_label_classification":
        count = len(info.labels)
        temperatures = list(info.temperatures or (1.0,) * count)
        thresholds = list(info.thresholds or (EVEN,) * count)
        return MANY_LABELS.format(labels=labels, temperatures=temperatures, thresholds=thresholds)
    if info.task == "token_classification":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tags = json.dumps(list(config["id2label"].values()), ensure_ascii=False)
        return TAGS.format(labels=tags)
    return ONE_LABEL.format(labels=labels, temperature=info.temperature)
