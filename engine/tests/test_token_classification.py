"""Entities learned from texts of templates on the real sample base model: windows, exact gradients, resuming and serving."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoTokenizer,
    ByT5Tokenizer,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaConfig,
    XLNetConfig,
)

from engine import Event, Notice, Prepared, RunConfig, StepDone, devices, tasks, train
from engine.data.entity_tags import find_entities, tag_names
from engine.data.entity_windows import cut_into_windows, tokenizer_with_places
from engine.errors import BaseModelUnavailableError, RunInterruptedError
from engine.models.loading import attach_adapter, load_classifier_to_serve
from engine.serve.answers import EntitiesPrediction
from engine.serve.model_files import read_info
from engine.serve.predictor import Predictor
from engine.tasks.token_classification import Task
from engine.tests.conftest import curves_of, metrics_of, run, small
from engine.training.distributed import World
from engine.training.estimate import measure_run
from engine.training.notices import data_notices
from samples import base_model_path
from testing.entity_texts import LABELS, MarkedText, make_entity_frame, make_entity_texts
from testing.small_models import (
    ALBERT_SPECIAL,
    BERT_SPECIAL,
    ROBERTA_SPECIAL,
    save_model,
    train_bpe,
    train_unigram,
    train_wordpiece,
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
}
DEBERTA: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 32}
MODERNBERT: dict[str, Any] = {"pad_token_id": 1, "global_attn_every_n_layers": 2, "local_attention": 16}
DISTILBERT: dict[str, Any] = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
XLNET: dict[str, Any] = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}
FAMILIES: dict[str, tuple[Any, Callable[[list[str]], Any], dict[str, str]]] = {
    "distilbert": (DistilBertConfig(**DISTILBERT), train_wordpiece, BERT_SPECIAL),
    "roberta": (RobertaConfig(**SIZES), train_bpe, ROBERTA_SPECIAL),
    "albert": (AlbertConfig(**SIZES, embedding_size=16), train_unigram, ALBERT_SPECIAL),
    "electra": (ElectraConfig(**SIZES, embedding_size=16), train_wordpiece, BERT_SPECIAL),
    "deberta-v2": (DebertaV2Config(**SIZES, **DEBERTA, position_biased_input=False), train_unigram, ALBERT_SPECIAL),
    "modernbert": (ModernBertConfig(**SIZES, **MODERNBERT), train_bpe, ROBERTA_SPECIAL),
    "xlnet": (XLNetConfig(**XLNET), train_unigram, ALBERT_SPECIAL),  # padded on the left
    "gpt2": (GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=130), train_bpe, ROBERTA_SPECIAL),
}


def config_of(**sections: Any) -> RunConfig:
    """Return the configuration of eight steps, in windows of 16 tokens; sections add to it."""
    base: dict[str, dict[str, Any]] = {"data": {"train_samples": 30, "eval_samples": 16, "max_length": 16}}
    merged = {key: {**base.get(key, {}), **sections.get(key, {})} for key in {*base, *sections}}
    return small(task="token_classification", **merged)


def frame_of(texts: list[MarkedText], split: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"text": [each.text for each in texts], "label": [each.stored_label() for each in texts], "split": split}
    )


@pytest.fixture(scope="session")
def entities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short texts, and long ones that need several windows of 16 tokens."""
    path = tmp_path_factory.mktemp("entities") / "entities.parquet"
    long = [joined(make_entity_texts(6, seed, ["en"])) for seed in range(8)]
    short = make_entity_texts(60, 9)
    pl.concat([frame_of(short[:24] + long[:6], "train"), frame_of(short[24:38] + long[6:], "eval")]).write_parquet(path)
    return path


def joined(parts: list[MarkedText]) -> MarkedText:
    """Return one text of several."""
    text = ""
    spans: list[tuple[int, int, str]] = []
    for part in parts:
        text += " " if text else ""
        spans += [(start + len(text), end + len(text), label) for start, end, label in part.spans]
        text += part.text
    return MarkedText(text, spans)


def task_of(config: RunConfig, data: Path) -> Task:
    plan = devices.choose(config, World(0, 1, 0))
    task = tasks.create(config, plan, base_model_path(), data, None, 42)
    assert isinstance(task, Task)
    return task


def gradients(task: Task) -> dict[str, torch.Tensor]:
    by_name = {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}
    task.model.zero_grad()
    return by_name


EXACT: dict[str, dict[str, Any]] = {"lora": {"lora_dropout": 0.0}, "training": {"precision": "fp32"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"class_weights": "balanced"},
        {"class_weights": {"person": 3.0}, "label_smoothing_factor": 0.1},
        {"loss": "focal"},
    ],
)
def test_gradients_with_accumulation_equal_those_without(entities, choices):
    task = task_of(config_of(lora=EXACT["lora"], training={**EXACT["training"], **choices}), entities)
    task.model.eval()
    rows = np.arange(0, len(task.lengths), 3)
    weight = task.loss_weight(rows)
    task.backward(rows, weight)
    whole = gradients(task)
    for start in range(0, len(rows), 3):
        task.backward(rows[start : start + 3], weight)
    parts = gradients(task)
    assert whole.keys() == parts.keys() and len(whole) > 4
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_loss_of_all_windows_is_the_mean_over_the_tokens_of_all_texts(entities):
    task = task_of(config_of(**EXACT), entities)
    task.model.eval()
    rows = np.arange(len(task.lengths))
    assert task.loss_weight(rows) == len(task.train_tokens.counted) < task.lengths.sum()
    with torch.inference_mode():
        mean = float(task.loss(rows)) / task.loss_weight(rows)
        logits = torch.cat([task.logits(task.train_tokens, rows[i : i + 1]) for i in rows])
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(task.train.tags))
    assert mean == pytest.approx(float(expected), rel=1e-4)
    # Short texts are one window, in which all tokens but the two special ones count.
    assert len(task.lengths) > len(task.rows.train) == 30


@pytest.mark.slow
def test_same_texts_have_the_same_metrics_whatever_the_batch_size(entities):
    scores = []
    for size in (1, 7):
        config = config_of(lora=EXACT["lora"], training={**EXACT["training"], "per_device_eval_batch_size": size})
        scores.append(task_of(config, entities).evaluate())
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-4)
    assert {name: value for name, value in scores[0].items() if name != "loss"} == {
        name: value for name, value in scores[1].items() if name != "loss"
    }


@pytest.mark.slow
def test_run_resumed_in_the_middle_ends_in_the_same_bytes(entities, tmp_path):
    whole = run(config_of(), entities, tmp_path / "whole")
    before: list[Event] = []
    with pytest.raises(RunInterruptedError):
        for event in train(
            config_of(),
            data_file=entities,
            results=tmp_path / "parts",
            should_save=lambda: sum(isinstance(each, StepDone) for each in before) == 5,
        ):
            before.append(event)
    after = run(config_of(), entities, tmp_path / "parts")
    assert next(event for event in after if isinstance(event, Prepared)).resumed_from_step == 5
    adapters = [tmp_path / name / "artifacts/final_model/adapter_model.safetensors" for name in ("whole", "parts")]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    assert curves_of(after) == curves_of(whole)


@pytest.mark.slow
def test_spans_that_cannot_be_learned_as_they_stand_are_counted(tmp_path):
    spans = [(0, 20, "organization"), (14, 20, "place"), (24, 27, "place"), (30, 99, "place")]
    texts = [MarkedText("University of Taipei in Rome's centre", spans)] * 4
    pl.concat([frame_of(texts[:3], "train"), frame_of(texts[3:], "eval")]).write_parquet(tmp_path / "data.parquet")
    task = task_of(config_of(data={"max_length": 32}), tmp_path / "data.parquet")
    counts = {name: task.facts[f"{name}_spans"] for name in ("overlapping", "unusable", "inexact")}
    assert counts == {"overlapping": 4, "unusable": 4, "inexact": 4}
    codes = [notice.code for notice in data_notices(task.facts)]
    assert codes[-3:] == ["overlapping_spans", "unusable_spans", "inexact_spans"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_model_is_served_and_computed_by_plain_peft_as_it_was_evaluated(family, tmp_path):
    config, train_tokenizer, special = FAMILIES[family]
    texts = make_entity_texts(60, 3, ["en"])
    torch.manual_seed(0)
    tokenizer = train_tokenizer([each.text for each in texts])
    save_model(tmp_path / "bases" / family, config, tokenizer, special, "PreTrainedTokenizerFast")
    long = [joined(texts[start : start + 3]) for start in range(0, 60, 3)]
    pl.concat([frame_of(texts[:16], "train"), frame_of(long[-8:], "eval")]).write_parquet(tmp_path / "data.parquet")
    run_config = config_of(
        model={"name": family},
        lora={"layers_to_transform": None},
        data={"train_samples": None, "eval_samples": None},
        training={"max_steps": 2, "precision": "fp32"},
    )
    events = run(run_config, tmp_path / "data.parquet", tmp_path / "run", base_models_dir=tmp_path / "bases")
    metrics = metrics_of(events)
    assert metrics["saved_model"]["served"] and metrics["saved_model"]["difference"] < 1e-4
    assert metrics["data"]["texts_in_several_windows"] >= 8
    assert "program_differs" not in [notice["code"] for notice in metrics["notices"]]


def test_tokenizer_that_tells_no_places_is_refused_before_anything_is_trained(entities, tmp_path, monkeypatch):
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *arguments, **options: ByT5Tokenizer())
    with pytest.raises(BaseModelUnavailableError, match="does not tell where in a text its tokens stand"):
        run(config_of(), entities, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Event], Path]:
    """A run in fp32 that learns the templates, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    make_entity_frame(400, 100, 1, ["en"]).write_parquet(folder / "data.parquet")
    config = RunConfig.parse(
        {
            "task": "token_classification",
            "lora": {"target_modules": "all-linear"},
            "data": {"max_length": 32},
            "training": {
                "num_train_epochs": 2.5,
                "per_device_train_batch_size": 8,
                "learning_rate": 0.004,
                "precision": "fp32",
                "eval_strategy": "no",
                "save_strategy": "no",
            },
            "system": {"num_threads": 1},
        }
    )
    return run(config, folder / "data.parquet", folder / "results"), folder / "results"


@pytest.mark.slow
def test_run_learns_entities_better_than_a_dictionary_does(trained):
    metrics = metrics_of(trained[0])
    assert metrics["eval"]["entity_f1"] > 0.9 > 0.7 > metrics["baseline"]["dictionary_entity_f1"] > 0.3
    assert metrics["result"]["learned"] and metrics["checkpoints"]["best"]["metric"] == metrics["eval"]["entity_f1"]
    assert metrics["saved_model"]["served"] and metrics["saved_model"]["difference"] < 1e-3
    assert metrics["labels"] == list(LABELS) and metrics["data"]["tags"] == tag_names(LABELS)
    calibration = metrics["calibration"]
    assert calibration["ece_after"] < calibration["ece_before"] and calibration["rows"] == 100
    assert {"text", "entities", "predicted", "loss"} == metrics["worst"][0].keys()
    assert not [event for event in trained[0] if isinstance(event, Notice)]


@pytest.mark.slow
def test_served_entities_are_those_of_plain_peft(trained):
    folder = trained[1] / "artifacts/final_model"
    texts = [each.text for each in make_entity_texts(60, 77, ["en"], held_out=True)]
    answers = Predictor(base=base_model_path()).predict(folder, texts).predictions
    assert json.loads((folder / "adapter_config.json").read_text())["task_type"] == "TOKEN_CLS"

    info = read_info(folder)
    confident_from = info.confident_from
    assert confident_from is not None
    base, _missing = load_classifier_to_serve(base_model_path(), info.outputs, info.head)
    model = attach_adapter(base, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, answer in zip(texts, answers, strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0].numpy()
        windows = cut_into_windows([text], tokenizer_with_places(tokenizer, "base"), 512)
        expected = find_entities(logits[windows.counted], windows, info.temperature)
        assert isinstance(answer, EntitiesPrediction)
        assert answer.confident == (expected.certainties[0] >= confident_from)
        shown = [(each.start, each.end, info.labels.index(each.label)) for each in answer.entities]
        assert shown == [tuple(entity[1:]) for entity in expected.entities.tolist()]
        assert [each.probability for each in answer.entities] == pytest.approx(expected.probabilities, abs=1e-3)
        assert all(each.text == text[each.start : each.end] for each in answer.entities)


@pytest.mark.slow
def test_long_text_is_served_in_windows_and_none_of_it_is_cut_off(trained):
    folder = trained[1] / "artifacts/final_model"
    predictor = Predictor(base=base_model_path())
    parts = make_entity_texts(40, 5, ["en"])
    long = joined(parts)
    (answer,) = predictor.predict(folder, [long.text]).predictions
    assert isinstance(answer, EntitiesPrediction) and not answer.truncated
    right = {(each.start, each.end, each.label) for each in answer.entities} & set(long.spans)
    assert len(right) > 0.85 * len(long.spans)
    assert max(each.end for each in answer.entities) > 0.9 * len(long.text)
    together = predictor.predict(folder, ["Anna", long.text, "\u200b"]).predictions
    assert isinstance(together[1], EntitiesPrediction) and isinstance(together[2], EntitiesPrediction)
    assert [asdict(each) | {"probability": 0} for each in together[1].entities] == [
        asdict(each) | {"probability": 0} for each in answer.entities
    ]
    assert together[2].entities == ()


@pytest.mark.slow
def test_run_is_estimated_without_an_evaluation_before(entities, bases):
    config = config_of(model={"name": "tiny"}, lora={"layers_to_transform": None}, training={"precision": "fp32"})
    measured = measure_run(config, data_file=entities, base_models_dir=bases)
    assert measured.steps_per_epoch > 30 / 8 and measured.end_s > 0


@pytest.mark.slow
def test_new_head_starts_from_the_frequencies_of_the_tags(entities):
    task = task_of(config_of(), entities)
    shares = np.bincount(task.train.tags, minlength=len(task.output_names)) + 1
    bias = next(value for name, value in task.model.named_parameters() if name.endswith("modules_to_save.default.bias"))
    np.testing.assert_allclose(bias.detach().softmax(0).numpy(), shares / shares.sum(), rtol=0.02)  # bf16
