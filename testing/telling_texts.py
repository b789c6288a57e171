"""Make texts in which a few words decide what is learned, for models with random weights: they can learn nothing finer."""

import json
import random
from pathlib import Path
from typing import Any

import polars as pl

FILLER_WORDS = "the a it was on my we have to of and in at you this for is they with at all so just"
FILLERS = FILLER_WORDS.split()
TELLING = {
    "glad": ("happy", "love", "great", "thanks"),
    "sad": ("hate", "worst", "bad", "delayed"),
    "plain": ("flight", "phone", "service", "bag"),
}
TRAINING_ROWS = 178
ROWS = 240


def write_rows(folder: Path, task: str) -> Path:
    """Write 240 rows of 5 to 30 words, and two of 300, which have to be cut, or read in windows."""
    random.seed(3)
    rows = [make_row(task, 300 if number in (5, 180) else random.randint(4, 25)) for number in range(ROWS)]
    for number, row in enumerate(rows):
        row["split"] = "train" if number < TRAINING_ROWS else "eval"
    path = folder / "rows.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


def make_row(task: str, fillers: int) -> dict[str, Any]:
    """Return a text whose first words, among others, decide: long texts lose their end."""
    label = random.choice(list(TELLING))
    words = random.choices(FILLERS, k=fillers)
    if task == "pairs":
        other = label if random.random() < 0.5 else random.choice([each for each in TELLING if each != label])
        second = " ".join([random.choice(TELLING[other]), *random.choices(FILLERS, k=4)])
        return {"text": mix(random.choice(TELLING[label]), words[:6]), "second": second, "label": other}
    if task == "token_classification":
        return row_of_entities(words)
    if task == "multi_label_classification":
        labels = [each for each in TELLING if random.random() < 0.5]
        for each in labels:
            words[:6] = mix(random.choice(TELLING[each]), words[:6]).split()
        return {"text": " ".join(words), "label": json.dumps(labels)}
    for _ in range(3):
        words[:8] = mix(random.choice(TELLING[label]), words[:8]).split()
    return {"text": " ".join(words), "label": list(TELLING).index(label) if task == "regression" else label}


def mix(word: str, words: list[str]) -> str:
    place_of_word = random.randint(0, len(words))
    return " ".join([*words[:place_of_word], word, *words[place_of_word:]])


def row_of_entities(words: list[str]) -> dict[str, Any]:
    """Return a text in which every telling word is an entity of its kind."""
    kinds: list[str | None] = [None] * len(words)
    for number in random.sample(range(len(words)), k=min(3, len(words))):
        kind = random.choice(list(TELLING))
        kinds[number] = kind
        words[number] = random.choice(TELLING[kind])
    spans, start = [], 0
    for word, label in zip(words, kinds, strict=True):
        if label:
            spans.append({"start": start, "end": start + len(word), "label": label})
        start += len(word) + 1
    return {"text": " ".join(words), "label": json.dumps(spans)}
