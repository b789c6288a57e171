"""The program that pages and cards show under "Use it in plain PEFT" is run as it stands: it answers as the platform does."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from engine import RunConfig, train
from engine.serve.predictor import Predictor
from experiments.results import plain_peft_code, read_facts
from samples import base_model_path
from testing.adapters import load_with_plain_peft, make_adapter
from testing.predictions import predict_labels

LABELS = ["bad", "good", "odd"]
TEXTS = ["What a lovely day!", "no", "I have been waiting for two hours and nobody came to help me. " * 12]


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


def run_program(program: str, text: str) -> list[float]:
    """Run the program for a text instead of "…"; return its probabilities."""
    values: dict[str, Any] = {"print": lambda label: None}
    exec(program.replace('"…"', json.dumps(text)), values)
    return values["logits"][0].softmax(-1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("stored", [{"num_labels": 5}, {"dtype": torch.bfloat16}], ids=["other-head", "bf16"])
def test_shown_program_answers_as_the_platform_does(tmp_path, monkeypatch, stored):
    build_base(tmp_path / "mine", **stored)
    rows = [{"text": f"{label} {label} day number {n}", "label": label} for n in range(12) for label in LABELS]
    pl.DataFrame(rows).write_csv(tmp_path / "rows.csv")
    config = {
        "model": {"name": "mine", "revision": "v1.0"},
        "data": {"max_length": 512},  # more than the base model's positions: the program has to say what was trained
        "training": {"max_steps": 6, "learning_rate": 0.05, "precision": "fp32"},
        "system": {"baseline": False, "num_threads": 1},
    }
    results = tmp_path / "run"
    run = RunConfig.parse(config)
    list(train(run, data_file=tmp_path / "rows.csv", results=results, base_models_dir=tmp_path))
    final_model = results / "artifacts/final_model"
    monkeypatch.chdir(tmp_path)
    program = plain_peft_code("run/artifacts/final_model", LABELS, config, read_facts(final_model))
    assert "# The base model mine does not come from the model hub." in program and "max_length=64" in program
    for prediction, text in zip(predict_labels(Predictor(tmp_path), final_model, TEXTS), TEXTS, strict=True):
        assert run_program(program, text) == pytest.approx(prediction.probabilities, abs=1e-3)
    assert json.loads((final_model / "adapter_config.json").read_text())["revision"] == "v1.0"


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
    assert run_program(program, TEXTS[2]) == pytest.approx(expected, abs=1e-5)


def test_model_of_an_earlier_release_has_a_program_too():
    program = plain_peft_code("old", LABELS, {"data": {"max_length": 99}}, {})
    compile(program, "program", "exec")
    assert "max_length=99" in program and not program.startswith("#")
