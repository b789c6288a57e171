"""The events of a run and the files that it writes."""

import json
from dataclasses import asdict

import polars as pl
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from engine import Checkpointed, Evaluated, Finished, Notice, Prepared, RunConfig, StageChanged, StepDone
from engine.errors import LossNotFiniteError, OutOfMemoryError, TextsTooLongError
from engine.tasks.sequence_classification import Task
from engine.tests.conftest import metrics_of, run, small
from engine.training.micro_batches import MicroBatches
from samples import base_model_path


@pytest.fixture(scope="module")
def finished(tweets, tmp_path_factory):
    results = tmp_path_factory.mktemp("results") / "run"
    config = small(system={"baseline": True}, training={"eval_strategy": "steps", "eval_steps": 2})
    return run(config, tweets, results, dataset_hash="abc"), results


@pytest.mark.slow
def test_stages_come_in_order_and_done_is_last(finished):
    events, _ = finished
    stages = [event.stage for event in events if isinstance(event, StageChanged)]
    assert stages[:2] == ["preparing", "training"] and stages[-2:] == ["saving", "done"]
    assert isinstance(events[-2], Finished)


@pytest.mark.medium
def test_every_step_has_one_event_with_its_tokens_without_padding(finished):
    events, _ = finished
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 9))
    assert steps[-1].epoch == 2 and steps[-1].eta_seconds == 0
    assert all(0 < event.tokens <= 8 * 24 for event in steps)


def test_prepared_event_describes_the_run(finished):
    prepared = next(event for event in finished[0] if isinstance(event, Prepared))
    assert prepared.labels == ["negative", "neutral", "positive"]
    assert (prepared.total_steps, prepared.train_rows, prepared.eval_rows) == (8, 32, 16)
    assert 0 < prepared.trainable_parameters < prepared.total_parameters / 100


def test_metrics_json_has_the_metrics_of_the_last_event(finished):
    events, results = finished
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(metrics_of(events)))
    assert {"accuracy", "macro_f1", "macro_precision", "macro_recall", "loss", "per_label", "confusion_matrix"} <= set(
        metrics["eval"]
    )
    assert set(metrics["baseline"]) == {"majority_accuracy", "linear_accuracy"}
    assert metrics["worst"][0]["loss"] >= metrics["worst"][-1]["loss"]
    assert metrics["train"]["steps"] == 8 and metrics["system"]["peak_memory_mb"] > 100


def test_wrong_rows_are_kept_beside_the_metrics(finished):
    _events, results = finished
    confusion = json.loads((results / "metrics.json").read_text())["eval"]["confusion_matrix"]
    wrong = sum(count for i, row in enumerate(confusion) for j, count in enumerate(row) if i != j)
    rows = json.loads((results / "artifacts/wrong_rows.json").read_text())
    assert len(rows) == wrong > 0 and all(row["label"] != row["predicted"] for row in rows)


def test_metrics_json_keeps_every_notice_of_the_run(finished):
    events, results = finished
    notices = [asdict(event) for event in events if isinstance(event, Notice)]
    assert "truncated" in [notice["code"] for notice in notices]
    assert json.loads((results / "metrics.json").read_text())["notices"] == notices


def test_only_best_last_and_fastest_checkpoints_are_kept(finished):
    events, results = finished
    checkpoints = metrics_of(events)["checkpoints"]
    assert set(checkpoints) == {"best", "last", "fastest"}
    folders = {path.name for path in (results / "artifacts/checkpoints").iterdir()}
    assert folders == {f"checkpoint-{entry['step']}" for entry in checkpoints.values()}
    assert all((results / entry["path"]).is_dir() for entry in checkpoints.values())
    scores = {event.step: event.metrics["accuracy"] for event in events if isinstance(event, Evaluated)}
    assert checkpoints["best"]["metric"] == max(scores.values())
    assert checkpoints["fastest"]["step"] == min(
        step for step, score in scores.items() if score >= max(scores.values()) - 0.01
    )


@pytest.mark.medium
def test_final_model_gives_the_same_metrics_in_plain_peft(finished, tweets):
    events, results = finished
    final = results / "artifacts/final_model"
    facts = json.loads((final / "lorasite.json").read_text())
    assert facts["labels"] == ["negative", "neutral", "positive"] and facts["dataset_hash"] == "abc"
    base = AutoModelForSequenceClassification.from_pretrained(base_model_path(), num_labels=3)
    model = PeftModel.from_pretrained(base, final).eval()
    tokenizer = AutoTokenizer.from_pretrained(final)
    rows = metrics_of(events)["worst"]
    inputs = tokenizer([row["text"] for row in rows], truncation=True, max_length=24, padding=True, return_tensors="pt")
    with torch.no_grad():
        chances = (model(**inputs).logits / facts["answers"]["temperature"]).softmax(-1)
    for row, chance in zip(rows, chances, strict=True):
        assert facts["labels"][int(chance.argmax())] == row["predicted"]
        assert chance.max().item() == pytest.approx(row["probability"], abs=1e-3)


def test_config_yaml_reads_back_and_the_log_ends_with_finished(finished):
    _, results = finished
    assert RunConfig.from_yaml((results / "config.yaml").read_text()).lora.r == 4
    assert "The final model is saved and was loaded as a check." in (results / "logs.txt").read_text()


@pytest.mark.slow
def test_learning_lowers_the_loss_and_beats_the_majority(tweets, tmp_path):
    config = small(
        lora={"lora_dropout": 0.0},
        data={"train_samples": 256, "eval_samples": 40},
        training={"num_train_epochs": 4, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1},
    )
    metrics = metrics_of(run(config, tweets, tmp_path))
    assert metrics["eval"]["accuracy"] > metrics["baseline"]["majority_accuracy"]


def fail_above(monkeypatch, rows_that_fit):
    """Let memory run out for larger micro-batches, with the error that torch raises on a CPU."""
    real = Task.loss

    def loss(self, rows):
        if len(rows) > rows_that_fit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory")
        return real(self, rows)

    monkeypatch.setattr(Task, "loss", loss)


@pytest.mark.slow
def test_smaller_micro_batches_after_running_out_of_memory_give_the_same_result(tweets, tmp_path, monkeypatch):
    config = small(
        lora={"lora_dropout": 0.0}, training={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    )
    plenty = run(config, tweets, tmp_path / "plenty")
    fail_above(monkeypatch, 3)
    scarce = run(config, tweets, tmp_path / "scarce")
    notices = [event for event in scarce if isinstance(event, Notice) and event.code == "out_of_memory"]
    assert len(notices) == 2 and "micro-batches of 2" in notices[-1].message
    assert metrics_of(scarce)["system"]["micro_batch"] == 2
    losses = [[event.loss for event in events if isinstance(event, StepDone)] for events in (plenty, scarce)]
    assert len(losses[0]) == 8 and losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_run_that_does_not_fit_is_refused_before_its_first_step(tweets, tmp_path, monkeypatch):
    fail_above(monkeypatch, 0)
    with pytest.raises(OutOfMemoryError, match="smaller base model") as stopped:
        run(small(), tweets, tmp_path)
    assert stopped.value.code == "out_of_memory"


@pytest.mark.slow
def test_run_whose_longest_row_does_not_fit_proposes_a_length_that_does(tweets, tmp_path, monkeypatch):
    real = Task.loss

    def loss(self, rows):
        if self.lengths[rows].max() > 12:
            raise MemoryError
        return real(self, rows)

    monkeypatch.setattr(Task, "loss", loss)
    with pytest.raises(OutOfMemoryError, match=r"Set data.max_length to 12\b") as stopped:
        run(small(), tweets, tmp_path)
    assert stopped.value.field == "data.max_length"


def test_texts_that_are_too_long_are_refused_if_configured(tweets, tmp_path):
    with pytest.raises(TextsTooLongError, match="longer than 12 tokens") as stopped:
        run(small(data={"max_length": 12, "truncation": "refuse"}), tweets, tmp_path)
    assert stopped.value.field == "data.max_length" and not (tmp_path / "artifacts" / "final_model").exists()


@pytest.mark.slow
def test_loss_that_is_not_finite_stops_the_run_with_an_error(tweets, tmp_path, monkeypatch):
    real = MicroBatches.accumulate_gradients
    monkeypatch.setattr(
        MicroBatches,
        "accumulate_gradients",
        lambda self, rows, step: float("nan") if step == 5 else real(self, rows, step),
    )
    with pytest.raises(LossNotFiniteError, match="step 6"):
        run(small(), tweets, tmp_path)
    assert (tmp_path / "artifacts/checkpoints/checkpoint-4").is_dir()
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.medium
@pytest.mark.parametrize(("precision", "field"), [("fp32", "model.name"), ("bf16", "training.precision")])
def test_loss_that_is_not_finite_from_the_start_does_not_blame_the_learning_rate(
    tweets, bases, tmp_path, monkeypatch, precision, field
):
    monkeypatch.setattr(MicroBatches, "accumulate_gradients", lambda self, rows, step: float("nan"))
    config = small(model={"name": "tiny"}, lora={"layers_to_transform": None}, training={"precision": precision})
    with pytest.raises(LossNotFiniteError, match="at the first step") as refused:
        run(config, tweets, tmp_path, base_models_dir=bases)
    assert refused.value.field == field and "learning_rate" not in str(refused.value)


@pytest.mark.slow
def test_early_stopping_ends_the_run_and_keeps_the_best(tweets, tmp_path):
    config = small(
        training={"num_train_epochs": 20, "early_stopping_patience": 1, "learning_rate": 1e-9, "logging_steps": 4}
    )
    events = run(config, tweets, tmp_path)
    assert metrics_of(events)["train"]["steps"] == 8 and metrics_of(events)["train"]["stopped_early"]
    assert any(isinstance(event, Checkpointed) and event.kept["best"] == 4 for event in events)


@pytest.mark.slow
def test_splits_of_the_data_are_respected_and_test_rows_reported(tweets, tmp_path):
    frame = (
        pl.read_parquet(tweets)
        .head(60)
        .with_columns(pl.Series("split", ["train"] * 40 + ["validation"] * 10 + ["test"] * 10))
    )
    frame.write_csv(tmp_path / "split.csv")
    config = small(data={"train_samples": None, "eval_samples": None}, training={"max_steps": 1})
    metrics = metrics_of(run(config, tmp_path / "split.csv", tmp_path / "run"))
    assert sum(map(sum, metrics["eval"]["confusion_matrix"])) == 10
    assert sum(map(sum, metrics["test"]["confusion_matrix"])) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "lora",
    [{"use_dora": True}, {"use_rslora": True, "loraplus_lr_ratio": 16}, {"init_lora_weights": "pissa"}, {"bias": "all"},
     {"target_modules": "all-linear"}],
    ids=["dora", "rslora+", "pissa", "bias", "all-linear"],
)  # fmt: skip
def test_each_kind_of_adapter_trains_and_loads(tweets, tmp_path, lora):
    events = run(small(lora=lora, training={"max_steps": 2, "class_weights": "balanced"}), tweets, tmp_path)
    assert isinstance(events[-2], Finished)
