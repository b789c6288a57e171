"""The program that pages and cards show under "Use it in plain PEFT" is run as it stands: it answers as the platform does."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from engine import RunConfig, train
from engine.serve.answers import Answer, EntitiesPrediction, Prediction, ScorePrediction
from engine.serve.predictor import Predictor
from experiments.results import plain_peft_code, read_facts
from samples import base_model_path
from testing.adapters import load_with_plain_peft, make_adapter
from testing.model_families import FAMILIES, save_family
from testing.programs import run_program

LABELS = ["bad", "good", "odd"]
# Short, empty but for white space, beyond the 16 tokens that are read, with marks of their own, and with special tokens.
TEXTS = [
    "What a lovely day in Taipei!",
    "no",
    "I have been waiting for two hours in Berlin and nobody of Ford came to help me. " * 6,
    "Zoe\u0308 and Jose\u0301 met 陳志明 in 台北🎉 on 12 May 👍🏽",
    "志明昨天在台北吃飯。" * 8,
    "[SEP] a </s> b <|endoftext|> c [MASK]",
]
# A task, and whether a row is a pair of texts.
VARIANTS: dict[str, tuple[str, bool]] = {
    "labels": ("sequence_classification", False),
    "pairs": ("sequence_classification", True),
    "several-labels": ("multi_label_classification", False),
    "scores": ("regression", False),
    "scores-of-pairs": ("regression", True),
    "entities": ("token_classification", False),
}


def make_rows(task: str) -> pl.DataFrame:
    """Return 36 pairs of texts with what is to be learned about the first one."""
    rows = []
    for n in range(36):
        name = LABELS[n % 3]
        text = f"{name} {name} day number {n}"
        # Each word is an entity, so that a model of a few steps finds many.
        words = list(re.finditer(r"\w+", text))
        spans = [{"start": word.start(), "end": word.end(), "label": LABELS[i % 3]} for i, word in enumerate(words)]
        label = {
            "sequence_classification": name,
            "multi_label_classification": json.dumps([name] if n % 4 else LABELS),
            "regression": str(n % 3 + n / 100),
            "token_classification": json.dumps(spans),
        }[task]
        rows.append((text, f"answer {n} is {LABELS[n // 3 % 3]}", label, "eval" if n % 6 > 3 else "train"))
    return pl.DataFrame(rows, schema=["text", "reply", "label", "split"], orient="row")


def train_small(folder: Path, variant: str, base_model: str, max_length: int = 16, **model: str) -> Path:
    """Train four large steps over a base model in `folder`; return the folder of the final model."""
    task, pairs = VARIANTS[variant]
    results = folder / f"{base_model}-{variant}"
    make_rows(task).write_parquet(folder / f"{task}.parquet")
    config = {
        "task": task,
        "model": {"name": base_model, **model},
        "lora": {"r": 4, "target_modules": "all-linear", "lora_dropout": 0.1},
        "data": {"max_length": max_length, "text_pair_column": "reply" if pairs else None},
        "training": {"max_steps": 4, "learning_rate": 0.01, "precision": "fp32"},
        "system": {"baseline": False, "num_threads": 1},
    }
    run = RunConfig.parse(config)
    list(train(run, data_file=folder / f"{task}.parquet", results=results, base_models_dir=folder))
    return results / "artifacts/final_model"


def check_answer(actual: Any, expected: Answer) -> None:
    """Compare what a program returns with what is served."""
    if isinstance(expected, ScorePrediction):
        assert actual == pytest.approx(expected.score, abs=1e-3)
    elif isinstance(expected, EntitiesPrediction):
        places = [(entity["start"], entity["end"], entity["label"], entity["text"]) for entity in actual]
        assert places == [(each.start, each.end, each.label, each.text) for each in expected.entities]
        probabilities = [each.probability for each in expected.entities]
        assert [entity["probability"] for entity in actual] == pytest.approx(probabilities, abs=1e-3)
    else:
        chosen, probabilities = actual
        if isinstance(expected, Prediction):
            assert chosen == expected.labels[expected.label]
        else:
            assert chosen == list(expected.chosen)
        assert probabilities == pytest.approx(dict(zip(expected.labels, expected.probabilities, strict=True)), abs=1e-3)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for name in FAMILIES:
        save_family(name, folder / name)
    return folder


# Each family reads pairs of texts and has each task's head. How one text alone gets a score, and two get labels, is the same for all.
FAMILY_VARIANTS = [
    (family, variant)
    for family in FAMILIES
    for variant in VARIANTS
    if family == "bert" or variant not in ("pairs", "scores")
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant"), FAMILY_VARIANTS)
def test_shown_program_answers_as_the_platform_does(bases, monkeypatch, family, variant):
    final_model = train_small(bases, variant, family)
    facts = read_facts(final_model)
    monkeypatch.chdir(bases)
    program = plain_peft_code(f"{family}-{variant}/artifacts/final_model", facts["labels"], {}, facts)
    predict = run_program(program)
    pairs = TEXTS[::-1] if facts["text_pairs"] else None
    answers = Predictor(bases).predict(final_model, TEXTS, pairs).predictions
    for number, (text, answer) in enumerate(zip(TEXTS, answers, strict=True)):
        check_answer(predict(text, pairs[number]) if pairs else predict(text), answer)
    if variant == "entities":
        assert sum(len(answer.entities) for answer in answers if isinstance(answer, EntitiesPrediction)) > 5


def build_base(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Path:
    """Write a tiny BERT with a head of its own and 64 positions, stored in `dtype`."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = BertConfig(**sizes, max_position_embeddings=64, initializer_range=0.2, **settings)
    model: Any = BertForSequenceClassification(config)
    model.to(dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_model_path(), model_max_length=64).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stored", [{"num_labels": 5}, {"dtype": torch.bfloat16}], ids=["other-head", "bf16"])
def test_program_of_any_stored_base_model_answers_as_the_platform_does(tmp_path, monkeypatch, stored):
    build_base(tmp_path / "mine", **stored)
    # More than the base model's positions: the program has to say what was trained.
    final_model = train_small(tmp_path, "labels", "mine", max_length=512, revision="v1.0")
    monkeypatch.chdir(tmp_path)
    program = plain_peft_code("mine-labels/artifacts/final_model", LABELS, {}, read_facts(final_model))
    assert "# The base model mine does not come from the model hub." in program and "max_length=64" in program
    predict = run_program(program)
    for text, answer in zip(TEXTS, Predictor(tmp_path).predict(final_model, TEXTS).predictions, strict=True):
        check_answer(predict(text), answer)
    assert json.loads((final_model / "adapter_config.json").read_text())["revision"] == "v1.0"


@pytest.mark.slow
def test_shown_program_truncates_on_the_side_of_the_tokenizer(tmp_path, monkeypatch):
    folder = make_adapter(tmp_path / "model", LABELS, seed=1, base=build_base(tmp_path / "mine"), revision="main")
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "mine"}))
    monkeypatch.chdir(tmp_path)
    program = plain_peft_code("model", LABELS, {}, read_facts(folder) | {"truncation_side": "left"})
    model, tokenizer = load_with_plain_peft(folder, tmp_path / "mine")
    ids = tokenizer(TEXTS[2])["input_ids"]
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([[ids[0], *ids[-23:]]])).logits[0].softmax(-1).tolist()
    _label, probabilities = run_program(program)(TEXTS[2])
    assert list(probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_model_of_an_earlier_release_has_a_program_too():
    """Without lorasite.json, as without the facts that an earlier release did not write."""
    for task in ("sequence_classification", "multi_label_classification", "regression", "token_classification"):
        program = plain_peft_code("old", LABELS, {"task": task, "data": {"max_length": 99}}, {})
        compile(program, "program", "exec")
        assert "max_length=99" in program.replace(" ", "") and not program.startswith("#")
