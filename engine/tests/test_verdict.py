"""A run that did not learn says so, with the probable cause; one that learned is left in peace."""

import json
from typing import Any

import numpy as np
import pytest

from engine import Notice, RunConfig
from engine.intervals import wilson_interval
from engine.tests.conftest import metrics_of, run, small
from engine.training.verdict import explain, judge


def metrics(
    confusion: list[list[int]], losses: list[float], *, steps: int = 300, precision: str = "fp32", **more: Any
) -> dict[str, Any]:
    """Return the parts of metrics.json that count, for a confusion matrix and a loss curve."""
    matrix = np.array(confusion)
    points = [{"step": step, "loss": loss, "grad_norm": more.get("norm", 1.0)} for step, loss in enumerate(losses)]
    return {
        "labels": [f"label {index}" for index in range(len(matrix))],
        "eval": {"accuracy": float(matrix.trace() / matrix.sum()), "confusion_matrix": confusion},
        "baseline": {"majority_accuracy": float(matrix.sum(axis=1)[0] / matrix.sum())},
        "history": [*points, {"step": len(points), "eval_loss": 1.0}],
        "train": {"steps": steps},
        "system": {"precision": precision},
        "data": {"unknown_token_share": more.get("unknown", 0.0)},
    }


def verdict(confusion, losses, *, rate: float = 5e-4, **more):
    return judge(metrics(confusion, losses, **more), RunConfig.parse({"training": {"learning_rate": rate}}))


CONSTANT = [[50, 0], [50, 0]]
GUESSED = [[27, 23], [23, 27]]
GOOD = [[40, 10], [10, 40]]
FLAT = [0.69, 0.70, 0.69, 0.69]
FALLING = [0.69, 0.5, 0.3, 0.1]


@pytest.mark.parametrize(
    ("confusion", "losses"),
    [
        (GOOD, FALLING),
        (GOOD, FLAT),  # the base model knew it before
        ([[90, 3], [1, 6]], FALLING),  # rare labels are found, though accuracy is hardly above the majority's
        ([[7, 3], [2, 8]], FALLING),  # few rows: the loss decides
        ([[50, 0], [0, 0]], FALLING),  # all evaluation rows have one label
    ],
)
def test_run_that_learned(confusion, losses):
    result = verdict(confusion, losses)
    assert result["learned"] is True and result["cause"] == ""


@pytest.mark.parametrize(
    ("confusion", "losses"),
    [
        (CONSTANT, FALLING),
        (GUESSED, FALLING),  # 54 % on 100 rows are no more than chance
        ([[95, 0], [5, 0]], FALLING),
        ([[0, 30], [0, 70]], FLAT),  # constant, and above the training rows' most frequent label
        ([[6, 4], [4, 6]], FLAT),
    ],
)
def test_run_that_did_not_learn(confusion, losses):
    assert verdict(confusion, losses)["learned"] is False


@pytest.mark.parametrize(
    ("cause", "losses", "more"),
    [
        ("learning_rate_too_high", [0.7, 2.5, 0.9, 0.7], {}),
        ("learning_rate_too_high", [0.7, 0.7, 0.9, 0.9], {}),
        ("learning_rate_too_high", FLAT, {"rate": 0.1}),
        ("learning_rate_too_high", [50.0, 8.0, 0.9, 0.7], {"rate": 0.5}),  # it diverged in its first steps
        ("learning_rate_too_low", FLAT, {"rate": 1e-6, "steps": 20}),
        ("learning_rate_too_low", FLAT, {"rate": 5e-5}),
        ("unknown_tokens", FLAT, {"unknown": 0.9, "steps": 20}),
        ("precision", FLAT, {"precision": "bf16", "norm": 0.0}),
        ("too_few_steps", FLAT, {"steps": 20}),
        ("too_few_steps", [0.7], {"steps": 5}),
        ("data", FALLING, {"steps": 40}),
        ("data", FALLING, {}),
    ],
)
def test_cause_follows_from_the_evidence(cause, losses, more):
    result = verdict(CONSTANT, losses, **more)
    assert result["cause"] == cause
    message = explain(result)
    assert message.startswith("The model did not learn: it is right in 50.0% of 100 evaluation rows")
    assert "label 0 for every row" in message
    json.dumps(result, allow_nan=False)


def test_interval_is_that_of_wilson():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@pytest.mark.slow
def test_run_with_a_hopeless_learning_rate_says_so_in_notice_and_metrics(tweets, bases, tmp_path):
    config = small(
        model={"name": "tiny"},
        lora={"layers_to_transform": None},
        data={"train_samples": 64, "eval_samples": 40},
        training={"learning_rate": 1.0, "max_grad_norm": 0},
    )
    events = run(config, tweets, tmp_path, base_models_dir=bases)
    result = metrics_of(events)["result"]
    assert (result["learned"], result["cause"]) == (False, "learning_rate_too_high")
    notices = [event.message for event in events if isinstance(event, Notice) and event.code == "not_learned"]
    assert len(notices) == 1 and "Lower training.learning_rate." in notices[0]
    assert json.loads((tmp_path / "metrics.json").read_text())["result"] == result


def entity_metrics_of(score: float, constant: float, entities: int, losses: list[float]) -> dict[str, Any]:
    """Return the parts of metrics.json that count for a run that finds entities."""
    parts = metrics(GOOD, losses)
    parts["eval"] = {"entity_f1": score, "per_label": {"place": {"support": entities}}}
    return parts | {"baseline": {"constant_entity_f1": constant}, "data": {"eval_rows": 50}}


@pytest.mark.parametrize(
    ("score", "constant", "entities", "losses", "learned"),
    [
        (0.6, 0.1, 100, FALLING, True),
        (0.15, 0.1, 100, FALLING, False),  # marking every token is hardly worse
        (0.0, 0.0, 100, FALLING, False),
        (0.0, 0.0, 0, FALLING, True),  # there is nothing to find, so the loss decides
        (0.0, 0.0, 0, FLAT, False),
    ],
)
def test_run_that_finds_entities_has_to_beat_marking_every_token(score, constant, entities, losses, learned):
    config = RunConfig.parse({"task": "token_classification"})
    result = judge(entity_metrics_of(score, constant, entities, losses), config)
    assert result["learned"] is learned
    if not learned:
        assert f"that of marking every token is {constant:.3f}" in explain(result)
