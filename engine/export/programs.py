"""Programs that answer texts as Lorasite does, without it: with an adapter in plain PEFT, or with exported files.

People read and change them, so they stay short. Each defines `predict`; tests run it for every family of models and every
task type. Importing this module imports no torch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from engine.serve.answers import EVEN
from engine.serve.model_files import ModelInfo

if TYPE_CHECKING:
    from engine.export import Format

LOAD_PEFT = """\
import numpy as np
import torch
from peft import AutoPeftModelFor{head}Classification
from transformers import AutoTokenizer

folder = {folder}
{settings}
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
model = AutoPeftModelFor{head}Classification.from_pretrained(
    folder, num_labels={outputs}, ignore_mismatched_sizes=True, dtype="float32"
).eval()
"""
LOAD_MERGED = """\
import numpy as np
import torch
from transformers import AutoModelFor{head}Classification, AutoTokenizer

folder = {folder}
{settings}
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
model = AutoModelFor{head}Classification.from_pretrained(folder, dtype="float32").eval()
"""
LOAD_ONNX = """\
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

folder = {folder}
{settings}
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
"""

COMPUTE_TEXT = """

def compute_logits({texts}):
    inputs = tokenizer({texts}, truncation=True, max_length={max_length}, return_tensors="pt"{types})
    with torch.inference_mode():
        return model(**inputs).logits[0].numpy()
"""
COMPUTE_TEXT_ONNX = """

def compute_logits({texts}):
    inputs = tokenizer({texts}, truncation=True, max_length={max_length}, return_tensors="np"{types})
    return session.run(["logits"], {{each.name: inputs[each.name] for each in session.get_inputs()}})[0][0]
"""
COMPUTE_TOKENS = """

def compute_logits(ids):
    ids = torch.tensor([ids])
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy()
"""
COMPUTE_TOKENS_ONNX = """

def compute_logits(ids):
    ids = np.array([ids])
    return session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
"""

ONE_LABEL = """

def predict({texts}):
    logits = compute_logits({texts}) / {temperature}
    exponents = np.exp(logits - logits.max())
    probabilities = dict(zip(labels, (exponents / exponents.sum()).tolist()))
    return max(probabilities, key=probabilities.get), probabilities


print(predict({examples}))
"""
MANY_LABELS = """

def predict({texts}):
    logits = compute_logits({texts}) / temperatures
    probabilities = dict(zip(labels, (1 / (1 + np.exp(-logits))).tolist()))
    return [label for label, least in zip(labels, thresholds) if probabilities[label] >= least], probabilities


print(predict({examples}))
"""
SCORE = """

def predict({texts}):
    return compute_logits({texts})[0].item() * deviation + mean


print(predict({examples}))
"""
LANGUAGE_MODEL = """\
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

folder = {folder}
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
end = tokenizer.convert_tokens_to_ids({end})  # ends an answer


def predict(messages, longest=256):
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=longest, do_sample=False, eos_token_id=end, pad_token_id=end)
    return tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


print(predict([{{"role": "user", "content": "…"}}]))
"""
# As engine.data.entity_windows and engine.data.entity_tags do it.
ENTITIES = '''

def read_windows(text):
    """Return where each token stands in the text, and its logits; a long text is read in overlapping windows."""
    encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    own = np.flatnonzero(np.array(encoding["special_tokens_mask"]) == 0)
    if not len(own):
        return [], np.empty((0, outputs))
    ids = encoding["input_ids"]
    before, ids, after = ids[: own[0]], ids[own[0] : own[-1] + 1], ids[own[-1] + 1 :]
    size = max_length - len(before) - len(after)
    overlap = size // 4
    count = 1 if len(ids) <= size else -(-(len(ids) - overlap) // (size - overlap))
    logits = np.empty((len(ids), outputs))
    end = 0
    for start in [number * (len(ids) - size) // max(1, count - 1) for number in range(count)]:
        window = [*before, *ids[start : start + size], *after]
        # Of two windows, the one with more text around a token counts.
        first = (start + end) // 2 if start else 0
        end = start + size
        logits[first:end] = compute_logits(window)[len(before) + first - start : len(window) - len(after)]
    return [encoding["offset_mapping"][i] for i in own], logits


def belongs_to_character_before(character):
    """Return whether a character is an accent, a joiner or the like, which tokens may leave out."""
    return unicodedata.category(character).startswith("M") or re.match(
        "[\\u200c\\u200d\\u1160-\\u11ff\\ud7b0-\\ud7ff\\U000e0020-\\U000e007f]", character
    )


def find_spans(text, places):
    """Return start and end of each token, without white space around it; start and end are equal where nothing is left."""
    spans = []
    limit = len(text)
    for start, end in reversed(places):
        piece = text[start:end]
        if not piece.strip():
            spans.append((start, start))
            continue
        start, end = end - len(piece.lstrip()), start + len(piece.rstrip())
        while end < limit and belongs_to_character_before(text[end]):
            end += 1
        limit = start
        spans.append((start, end))
    return spans[::-1]


def choose_tags(log_probabilities):
    """Return the likeliest tags in which each I- follows a B- or I- of its label (Viterbi)."""
    begins = np.arange(1, outputs, 2)
    insides = begins + 1
    scores = log_probabilities[0].copy()
    scores[insides] = -np.inf
    sources = []
    for row in log_probabilities[1:]:
        source = np.full(outputs, scores.argmax())
        source[insides] = np.where(scores[begins] >= scores[insides], begins, insides)
        sources.append(source)
        scores = scores[source] + row
    tags = [scores.argmax()]
    for source in reversed(sources):
        tags.append(source[tags[-1]])
    return tags[::-1]


def predict(text):
    places, logits = read_windows(text)
    spans = find_spans(text, places)
    solid = [i for i, (start, end) in enumerate(spans) if start < end]
    if not solid:
        return []
    logits = logits[solid] - logits[solid].max(axis=1, keepdims=True)
    tags = choose_tags(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    exponents = np.exp(logits / temperature)
    entities = []
    for i, tag, row in zip(solid, tags, exponents / exponents.sum(axis=1, keepdims=True)):
        if not tag:
            continue
        label = (tag - 1) // 2
        if tag % 2:
            entities.append({"start": spans[i][0], "label": labels[label], "probability": 1.0})
        probability = row[2 * label + 1 : 2 * label + 3].sum().item()  # as B- or I-; the least certain token counts
        entities[-1] |= {"end": spans[i][1], "probability": min(entities[-1]["probability"], probability)}
    separate = []
    for entity in entities:
        if not separate or separate[-1]["end"] <= entity["start"]:
            separate.append({"text": text[entity["start"] : entity["end"]], **entity})
    return separate


for entity in predict("…"):
    print(entity)
'''


def peft_program(info: ModelInfo, folder: str, tokenizer: str = "", truncation_side: str = "right") -> str:
    """Return the program for an adapter in plain PEFT.

    folder: of the adapter, as the program is to name it. tokenizer: another folder if the adapter's has none.
    """
    arguments = "folder" if tokenizer in ("", folder) else json.dumps(tokenizer)
    if truncation_side == "left":
        arguments += ', truncation_side="left"'
    if info.head == "causal":
        return LANGUAGE_MODEL.format(folder=json.dumps(folder), tokenizer=arguments, end=json.dumps(info.end_of_turn))
    return _head(LOAD_PEFT, info, json.dumps(folder), arguments) + _torch_body(info)


def export_program(info: ModelInfo, format: Format) -> str:
    """Return the program for the exported files in its own folder."""
    if format == "safetensors":
        return _head(LOAD_MERGED, info) + _torch_body(info)
    compute = COMPUTE_TOKENS_ONNX if info.head == "token" else _fill(COMPUTE_TEXT_ONNX, info)
    return _head(LOAD_ONNX, info) + compute + _answer(info)


def _torch_body(info: ModelInfo) -> str:
    return (COMPUTE_TOKENS if info.head == "token" else _fill(COMPUTE_TEXT, info)) + _answer(info)


def _head(template: str, info: ModelInfo, folder: str = '"."', tokenizer: str = "folder") -> str:
    """Return the lines that load the model."""
    outputs = "len(labels)"
    if info.task == "regression":
        outputs = "1"
    elif info.head == "token":
        outputs = "outputs"
    head = template.format(
        head=info.head.capitalize(), folder=folder, tokenizer=tokenizer, outputs=outputs, settings=_settings(info)
    )
    return f"import re\nimport unicodedata\n\n{head}" if info.head == "token" else head


def _settings(info: ModelInfo) -> str:
    """Return the lines that say what the model's outputs mean."""
    lines = [f"labels = {json.dumps(list(info.labels), ensure_ascii=False)}"]
    if info.task == "regression":
        return f"mean, deviation = {info.score_mean!r}, {info.score_deviation!r}"
    if info.task == "multi_label_classification":
        count = len(info.labels)
        lines.append(f"temperatures = np.array({list(info.temperatures or (1.0,) * count)!r})")
        lines.append(f"thresholds = {list(info.thresholds or (EVEN,) * count)!r}")
    elif info.head == "token":
        lines.append("outputs = 1 + 2 * len(labels)  # O, then B- and I- of each label")
        lines.append(f"max_length = {info.max_length}")
        lines.append(f"temperature = {info.temperature!r}")
    return "\n".join(lines)


def _answer(info: ModelInfo) -> str:
    """Return the lines that turn logits into an answer, as engine.serve.answers does."""
    if info.head == "token":
        return ENTITIES
    templates = {"multi_label_classification": MANY_LABELS, "regression": SCORE}
    return _fill(templates.get(info.task, ONE_LABEL), info)


def _fill(template: str, info: ModelInfo) -> str:
    return template.format(
        texts="text, text_pair" if info.text_pairs else "text",
        examples='"…", "…"' if info.text_pairs else '"…"',
        max_length=info.max_length,
        # A tokenizer may give types that the model was trained without.
        types="" if info.token_types else ", return_token_type_ids=False",
        temperature=info.temperature,
    )
