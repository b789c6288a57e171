"""Several labels, scores and pairs of texts: read, trained, evaluated, saved and served like single labels."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from engine import Prepared, RunConfig, devices, tasks
from engine.config_sections import DataSection
from engine.data.rows import load_rows
from engine.errors import ConfigError, RunInterruptedError, SingleLabelError
from engine.serve.answers import LabelsPrediction, Prediction, ScorePrediction
from engine.serve.errors import WrongInputError
from engine.serve.predictor import Predictor
from engine.task_types import METRICS
from engine.tasks.focal_loss import focal_binary_cross_entropy, focal_cross_entropy
from engine.tests.conftest import metrics_of, run, small
from engine.training.distributed import World
from engine.training.verdict import explain, judge

SCORES = {"negative": "-1.5", "neutral": "0", "positive": "1.5"}


def labels_of(task: str, text: str, label: str) -> str:
    """Return a label of the task type that can be learned from a tweet."""
    if task == "regression":
        return SCORES[label]
    if task == "multi_label_classification":
        return json.dumps([label] * (label != "neutral") + ["long"] * (len(text) > 60))
    return label


@pytest.fixture(scope="module")
def data(tweets: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the file of a task type: function of its name and whether each row has a second text."""
    folder = tmp_path_factory.mktemp("task-types")
    frame = pl.read_parquet(tweets)

    def file(task: str, pairs: bool = False) -> Path:
        path = folder / f"{task}-{pairs}.parquet"
        labels = [labels_of(task, text, label) for text, label in frame.select("text", "label").iter_rows()]
        rows = frame.select("text").with_columns(pl.Series("label", labels))
        if pairs:
            rows = rows.with_columns(pl.col("text").reverse().str.slice(0, 40).alias("reply"))
        rows.write_parquet(path)
        return path

    return file


def config(task: str, pairs: bool = False, **sections: Any) -> RunConfig:
    data_section = {"text_pair_column": "reply"} if pairs else {}
    sections["data"] = data_section | sections.get("data", {})
    return small(task=task, **sections)


def task_of(run_config: RunConfig, data_file: Path, bases: Path) -> Any:
    plan = devices.choose(run_config, World.from_environment())
    return tasks.create(run_config, plan, bases / run_config.model.name, data_file, None, 7)


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("task", ["sequence_classification", "multi_label_classification", "regression"])
def test_each_task_type_runs_to_a_saved_model_that_answers(task, pairs, data, bases, tmp_path):
    training = {"num_train_epochs": 1}
    events = run(config(task, pairs, training=training), data(task, pairs), tmp_path, base_models_dir=bases)
    metrics = metrics_of(events)
    assert metrics["task"] == task and set(METRICS[task]) - set(metrics["eval"]) == set()
    assert metrics["saved_model"]["served"] and metrics["saved_model"]["difference"] < 0.2
    assert metrics["result"]["evidence"]["eval_rows"] == 16 and len(metrics["worst"]) == 16
    final = tmp_path / "artifacts/final_model"
    texts = ["a fine day", "never again"]
    answers = Predictor(bases).predict(final, texts, ["indeed", "why?"] if pairs else None).predictions
    expected = {"regression": ScorePrediction, "multi_label_classification": LabelsPrediction}.get(task, Prediction)
    assert [type(answer) for answer in answers] == [expected, expected]
    with pytest.raises(WrongInputError, match="pairs of texts" if pairs else "single texts"):
        Predictor(bases).predict(final, texts, None if pairs else texts)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multi_label_classification", "regression"])
def test_run_that_was_interrupted_ends_in_the_same_bytes(task, data, bases, tmp_path):
    run_config = config(task, True, model={"name": "tiny"}, lora={"layers_to_transform": None})
    run(run_config, data(task, True), tmp_path / "whole", base_models_dir=bases)
    steps = itertools.count()
    more = {"base_models_dir": bases, "should_save": lambda: next(steps) == 4}
    with pytest.raises(RunInterruptedError):
        run(run_config, data(task, True), tmp_path / "parts", **more)
    events = run(run_config, data(task, True), tmp_path / "parts", base_models_dir=bases)
    assert next(event for event in events if isinstance(event, Prepared)).resumed_from_step == 5
    one, two = (tmp_path / name / "artifacts/final_model" for name in ("whole", "parts"))
    for name in ("adapter_model.safetensors", "lorasite.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "mean_squared", "huber"])
def test_gradients_of_accumulated_batches_are_those_of_one_batch(loss, data, bases):
    kinds = (
        ["regression"]
        if loss in ("mean_squared", "huber")
        else ["sequence_classification", "multi_label_classification"]
    )
    for kind in kinds:
        training = {"loss": loss, "precision": "fp32"}
        if kind != "regression":
            training["class_weights"] = "balanced"
        task = task_of(
            config(kind, model={"name": "still"}, lora={"lora_dropout": 0.0}, training=training), data(kind), bases
        )
        rows = np.arange(32)

        def gradient(size: int, task: Any = task, rows: np.ndarray = rows) -> torch.Tensor:
            task.model.zero_grad()
            for start in range(0, 32, size):
                task.backward(rows[start : start + size], task.loss_weight(rows))
            return torch.cat([p.grad.flatten() for p in task.model.parameters() if p.grad is not None])

        whole = gradient(32)
        assert float((gradient(8) - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


def test_focal_loss_is_cross_entropy_with_gamma_0_and_weighs_certain_rows_less():
    logits = torch.tensor([[3.0, 0.0], [0.2, 0.0]])
    labels = torch.tensor([0, 0])
    assert float(focal_cross_entropy(logits, labels, 0.0)) == pytest.approx(
        float(cross_entropy(logits, labels, reduction="sum"))
    )
    several = torch.eye(2)
    plain = binary_cross_entropy_with_logits(logits, several, reduction="none")
    assert torch.allclose(focal_binary_cross_entropy(logits, several, 0.0), plain)
    certain, unsure = (focal_cross_entropy(logits[i : i + 1], labels[:1], 2.0).item() for i in range(2))
    ratio = cross_entropy(logits[:1], labels[:1]).item() / cross_entropy(logits[1:], labels[:1]).item()
    assert certain / unsure < 0.1 * ratio


@pytest.mark.slow
def test_scores_are_learned_in_the_unit_of_the_data(data, tmp_path):
    training = {"num_train_epochs": 3, "learning_rate": 3e-3, "per_device_train_batch_size": 16}
    run_config = RunConfig.parse(
        {
            "task": "regression",
            "data": {"max_length": 32, "eval_fraction": 0.3},
            "lora": {"target_modules": "all-linear"},
            "training": training,
            "system": {"num_threads": 1},  # two processes of tests share the cores
        }
    )
    metrics = metrics_of(run(run_config, data("regression"), tmp_path))
    assert metrics["result"]["learned"] and metrics["eval"]["pearson"] > 0.5
    assert metrics["eval"]["mae"] < metrics["baseline"]["mean_mae"] and "linear_mae" in metrics["baseline"]
    assert min(truth for truth, _ in metrics["scatter"]) >= -1.5 and {"rmse", "pearson"} <= set(
        metrics["eval"]["intervals"]
    )
    good, bad = (
        Predictor()
        .predict(
            tmp_path / "artifacts/final_model", ["I love it, thank you so much!", "I hate this awful, terrible thing"]
        )
        .predictions
    )
    assert isinstance(good, ScorePrediction) and isinstance(bad, ScorePrediction) and good.score > bad.score + 0.5


POINTS = [{"step": step, "loss": 0.7, "grad_norm": 1.0} for step in (1, 2)]


def evidence(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of metrics.json that count."""
    parts = {"data": {"eval_rows": 100}, "train": {"steps": 300}, "system": {"precision": "fp32"}, "history": POINTS}
    return {"eval": scores, "labels": [], "baseline": {}, **parts}


def of_one_label(score: str, value: float) -> dict[str, Any]:
    """Return scores of a model with one label, which 30 of 100 rows have."""
    return {score: value, "per_label": {"a": {"support": 30, "average_precision": value}}}


@pytest.mark.parametrize(
    ("task", "scores", "learned"),
    [
        ("regression", {"r2": 0.3, "intervals": {"r2": [0.1, 0.5]}}, True),
        ("regression", {"r2": 0.05, "intervals": {"r2": [-0.2, 0.2]}}, False),
        ("regression", {"r2": None, "intervals": {"r2": None}}, False),
        ("multi_label_classification", of_one_label("macro_average_precision", 0.8), True),
        ("multi_label_classification", of_one_label("macro_average_precision", 0.33), False),
        ("token_classification", of_one_label("entity_f1", 0.6), True),
        ("token_classification", of_one_label("entity_f1", 0.0), False),
    ],
)
def test_verdict_compares_with_a_model_that_ignores_the_texts(task, scores, learned):
    result = judge(evidence(scores), RunConfig.parse({"task": task}))
    assert result["learned"] is learned
    if not learned:
        assert result["cause"] and "The model did not learn" in explain(result)


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"task": "regression", "training": {"class_weights": "balanced"}}, "training.class_weights"),
        ({"task": "regression", "training": {"metric_for_best_model": "accuracy"}}, "training.metric_for_best_model"),
        ({"task": "regression", "training": {"loss": "focal"}}, "training.loss"),
        ({"training": {"loss": "huber"}}, "training.loss"),
        ({"training": {"loss": "focal", "label_smoothing_factor": 0.1}}, "training.loss"),
        ({"task": "multi_label_classification", "training": {"label_smoothing_factor": 0.1}}, "training.label_smoothing_factor"),
        ({"task": "token_classification", "data": {"text_pair_column": "b"}}, "data.text_pair_column"),
        ({"task": "regression", "model": {"num_labels": 3}}, "model.num_labels"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_for_the_task_type_are_refused(sections, field):
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(sections)
    assert [problem.field for problem in caught.value.problems] == [field]


def test_metric_for_best_model_is_the_usual_one_of_the_task_type():
    assert {task: RunConfig.parse({"task": task}).training.metric_for_best_model for task in METRICS} == {
        task: metrics[0] for task, metrics in METRICS.items()
    }
    assert (
        RunConfig.from_yaml(RunConfig.parse({"task": "regression"}).to_yaml()).training.metric_for_best_model == "rmse"
    )


def test_labels_that_are_no_lists_or_numbers_are_left_out_and_counted(tmp_path):
    texts = [f"text {number} about something" for number in range(40)]
    pl.DataFrame({"text": texts, "label": ["1.5", "2", "abc", "nan"] * 10}).write_parquet(tmp_path / "scores.parquet")
    rows = load_rows(tmp_path / "scores.parquet", DataSection(), 7, "regression")
    assert rows.skipped_by_reason == {"not_a_number": 20} and rows.labels == []
    lists = [["a"], ["a", "b"], [], ["b"]] * 10
    pl.DataFrame({"text": texts, "label": lists}).write_parquet(tmp_path / "lists.parquet")
    rows = load_rows(tmp_path / "lists.parquet", DataSection(), 7, "multi_label_classification")
    assert rows.labels == ["a", "b"] and rows.train.labels.shape[1] == 2 and not rows.skipped
    spans = [
        '[{"start": 0, "end": 4, "label": "word"}]',
        "[]",
        "nothing",
        '[{"start": 4, "end": 2, "label": "x"}]',
    ] * 10
    pl.DataFrame({"text": texts, "label": spans}).write_parquet(tmp_path / "spans.parquet")
    rows = load_rows(tmp_path / "spans.parquet", DataSection(), 7, "token_classification")
    assert rows.labels == ["word"] and rows.skipped_by_reason == {"no_spans": 20}
    assert (rows.train.labels[:, 1:] == [0, 4, 0]).all()
    pl.DataFrame({"text": texts, "label": ["a"] * 40}).write_parquet(tmp_path / "words.parquet")
    with pytest.raises(SingleLabelError, match="40 whose label is no list of labels"):
        load_rows(tmp_path / "words.parquet", DataSection(), 7, "multi_label_classification")


def test_every_range_of_scores_and_every_rare_label_is_held_out(tmp_path):
    texts = [f"{number} words {number * 31}" for number in range(200)]
    scores = [str(number / 7) for number in range(200)]
    pl.DataFrame({"text": texts, "label": scores}).write_parquet(tmp_path / "scores.parquet")
    held_out = load_rows(tmp_path / "scores.parquet", DataSection(), 7, "regression").eval.labels
    assert 10 <= len(held_out) <= 30 and held_out.min() < 4 and held_out.max() > 24
    labels = [json.dumps(["rare"] if number % 40 == 0 else ["common"]) for number in range(200)]
    pl.DataFrame({"text": texts, "label": labels}).write_parquet(tmp_path / "lists.parquet")
    rows = load_rows(tmp_path / "lists.parquet", DataSection(), 7, "multi_label_classification")
    assert rows.eval.labels[:, rows.labels.index("rare")].sum() >= 1


@pytest.mark.slow
def test_calibrated_answers_are_the_logits_over_the_temperature_and_say_whether_they_are_confident(
    data, bases, tmp_path
):
    run(config("sequence_classification"), data("sequence_classification"), tmp_path, base_models_dir=bases)
    final = tmp_path / "artifacts/final_model"
    facts = json.loads((final / "lorasite.json").read_text())
    facts["answers"] |= {"temperature": 3.0, "confident_from": 0.9}
    (final / "lorasite.json").write_text(json.dumps(facts))
    predictor = Predictor(bases)
    (answer,) = predictor.predict(final, ["a fine day"]).predictions
    expected = (predictor.logits(final, ["a fine day"])[0] / 3).softmax(-1)
    assert isinstance(answer, Prediction) and answer.probabilities == pytest.approx(expected.tolist(), abs=1e-6)
    assert answer.confident is False


@pytest.mark.slow
def test_new_head_starts_from_the_frequencies_of_the_labels(data, bases):
    base: dict[str, Any] = {
        "model": {"name": "tiny"},
        "data": {"train_samples": 200},
        "lora": {"layers_to_transform": None},
    }
    task = task_of(config("multi_label_classification", **base), data("multi_label_classification"), bases)
    share = (task.rows.train.labels.sum(axis=0) + 1) / (len(task.rows.train) + 2)
    bias = next(value for name, value in task.model.named_parameters() if name.endswith("modules_to_save.default.bias"))
    np.testing.assert_allclose(bias.detach().float().sigmoid().numpy(), share, rtol=0.02)  # bf16
    weighted = config("multi_label_classification", **base, training={"class_weights": "balanced"})
    assert task_of(weighted, data("multi_label_classification"), bases).initial_bias() is None
