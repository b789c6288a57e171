"""Resumed runs end in the same bytes as unbroken ones, and a half-written checkpoint is never visible."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from engine import Checkpointed, ConfigError, Event, Finished, Notice, Prepared, StageChanged, StepDone, train
from engine.errors import (
    CheckpointDamagedError,
    DiskFullError,
    DiskRefusedError,
    EvaluationNotFiniteError,
    FolderGoneError,
    RunInterruptedError,
)
from engine.storage import MANIFEST, verify_folder, write_folder, write_manifest, write_text
from engine.tasks.sequence_classification import Task
from engine.tests.conftest import curves_of, metrics_of, run, small

pytestmark = pytest.mark.slow  # each test trains two or three times


def losses(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


def adapter(results):
    return (results / "artifacts/final_model/adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(tweets, tmp_path_factory):
    results = tmp_path_factory.mktemp("unbroken") / "run"
    return run(small(), tweets, results), results


def test_same_seed_gives_the_same_run(unbroken, tweets, tmp_path):
    events, results = unbroken
    again = run(small(), tweets, tmp_path / "again")
    assert losses(again) == losses(events)
    assert adapter(tmp_path / "again") == adapter(results)


@pytest.mark.parametrize("stop_at", [1, 3, 4, 7])
def test_run_resumed_anywhere_ends_in_the_same_bytes(unbroken, tweets, tmp_path, stop_at):
    events, results = unbroken
    before: list[Event] = []
    with pytest.raises(RunInterruptedError) as interrupted:
        for event in train(
            small(), data_file=tweets, results=tmp_path / "run", should_save=lambda: len(losses(before)) == stop_at
        ):
            before.append(event)
    assert "resume" in str(interrupted.value)
    after = run(small(), tweets, tmp_path / "run")
    assert next(event for event in after if isinstance(event, Prepared)).resumed_from_step == stop_at
    assert losses(before) + losses(after) == losses(events)
    assert adapter(tmp_path / "run") == adapter(results)
    strip = {"runtime_s", "tokens_per_second"}
    assert curves_of(after) == curves_of(events)
    assert {k: v for k, v in metrics_of(after)["train"].items() if k not in strip} == {
        k: v for k, v in metrics_of(events)["train"].items() if k not in strip
    }


def test_cancelled_run_keeps_its_checkpoint_and_can_be_resumed(unbroken, tweets, tmp_path):
    events, _ = unbroken
    before = []
    with closing(train(small(), data_file=tweets, results=tmp_path, cache_dir=None)) as running:
        for event in running:
            before.append(event)
            if isinstance(event, StepDone) and event.step == 6:
                break
    assert [path.name for path in (tmp_path / "artifacts/checkpoints").iterdir()] == ["checkpoint-4"]
    assert "Cancelled" in (tmp_path / "logs.txt").read_text()
    after = run(small(), tweets, tmp_path)
    assert losses(before)[:4] + losses(after) == losses(events)


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(unbroken, tweets, tmp_path):
    events, _ = unbroken
    config = small(training={"save_strategy": "steps", "save_steps": 3})
    expected = losses(events)
    steps: list[StepDone] = []
    with pytest.raises(RunInterruptedError):
        for event in train(config, data_file=tweets, results=tmp_path, should_save=lambda: len(steps) == 6):
            steps.extend([event] if isinstance(event, StepDone) else [])
    folder = tmp_path / "artifacts/checkpoints"
    newest = folder / "checkpoint-6"
    content = bytearray((newest / "optimizer.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "optimizer.safetensors").write_bytes(content)
    after = run(config, tweets, tmp_path)
    assert next(event.code for event in after if isinstance(event, Notice)) == "checkpoint_damaged"
    assert next(event for event in after if isinstance(event, Prepared)).resumed_from_step == 4
    assert losses(after) == expected[4:]


def test_folder_of_a_run_with_other_settings_is_refused(tweets, tmp_path):
    with closing(train(small(), data_file=tweets, results=tmp_path)) as running:
        next(event for event in running if isinstance(event, Checkpointed))
    with pytest.raises(ConfigError) as refused:
        run(small(lora={"r": 8}), tweets, tmp_path)
    assert refused.value.problems[0].field == "experiment_name"
    assert (tmp_path / "artifacts/checkpoints/checkpoint-4").is_dir()


def test_interrupted_save_leaves_nothing_under_the_checkpoints_name(tmp_path):
    def fill(draft):
        (draft / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DiskFullError, match="disk is full"):
        write_folder(tmp_path / "checkpoints/checkpoint-1", fill)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("removed", ["", "artifacts", "artifacts/checkpoints"])
@pytest.mark.parametrize("after", [StepDone, Checkpointed])
def test_folder_that_is_removed_while_the_run_trains_is_told_as_that_and_the_run_can_start_again(
    unbroken, tweets, tmp_path, removed, after
):
    results = tmp_path / "run"
    with pytest.raises(FolderGoneError) as gone:
        for event in train(small(), data_file=tweets, results=results):
            if isinstance(event, after) and results.exists():
                shutil.rmtree(results / removed, ignore_errors=True)
    assert gone.value.code == "folder_gone"
    assert (removed.rpartition("/")[2] or "run") + " was removed" in str(gone.value)
    run(small(), tweets, results)
    assert adapter(results) == adapter(unbroken[1])


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="Linux has folders that refuse root too")
def test_folder_that_refuses_files_is_not_called_full():
    with pytest.raises(DiskRefusedError, match="the disk refused it") as refused:
        write_text(Path("/sys/kernel/config.yaml"), "a: 1")
    assert refused.value.code == "disk_refused" and "Free some space" not in str(refused.value)


def test_a_folder_with_a_missing_or_further_file_does_not_verify(tmp_path):
    write_folder(tmp_path / "saved", lambda draft: (draft / "a").write_text("a"))
    verify_folder(tmp_path / "saved")
    (tmp_path / "saved" / "b").write_text("b")
    with pytest.raises(CheckpointDamagedError):
        verify_folder(tmp_path / "saved")


@pytest.mark.process
def test_process_killed_between_writing_and_renaming_leaves_only_a_draft(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from engine import storage\n"
        "storage.sync_tree = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage.write_folder(Path(sys.argv[1]) / 'checkpoint-1', lambda draft: (draft / 'a').write_text('a'))\n"
    )
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    killed = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=os.getcwd(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name.startswith(".draft-") for path in folder.iterdir()] == [True]
    from engine.training.checkpoint import Checkpoints

    assert Checkpoints(folder).find_newest() == (None, [])
    assert list(folder.iterdir()) == []


def test_checkpoint_holds_tensors_in_safetensors_and_no_pickle(unbroken):
    _, results = unbroken
    suffixes = {path.suffix for path in results.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".txt", ".yaml", ".jinja"}
    optimizer = load_file(next(results.rglob("optimizer.safetensors")))
    assert all(name.split(".")[1] in {"exp_avg", "exp_avg_sq", "step"} for name in optimizer)
    assert any(isinstance(event, Finished) for event in unbroken[0])


def stop_at(step, config, data_file, results, **more):
    """Train until a checkpoint of this step is saved."""
    steps: list[StepDone] = []
    with pytest.raises(RunInterruptedError):
        for event in train(
            config, data_file=data_file, results=results, should_save=lambda: len(steps) == step, **more
        ):
            steps.extend([event] if isinstance(event, StepDone) else [])


def tiny(**training):
    return small(model={"name": "tiny"}, lora={"layers_to_transform": None}, training=training)


@pytest.fixture
def own_tweets(tweets, tmp_path):
    """A copy of the tweets that a test may change."""
    return Path(shutil.copy(tweets, tmp_path / "own.parquet"))


def test_run_whose_labels_changed_while_it_was_stopped_is_refused_and_goes_on_once_they_are_restored(
    own_tweets, bases, tmp_path
):
    stop_at(3, tiny(), own_tweets, tmp_path / "run", base_models_dir=bases)
    original = pl.read_parquet(own_tweets)
    other = {"negative": "positive", "positive": "neutral", "neutral": "negative"}
    original.with_columns(pl.col("label").replace_strict(other)).write_parquet(own_tweets)
    with pytest.raises(ConfigError, match="rows or labels have changed") as refused:
        run(tiny(), own_tweets, tmp_path / "run", base_models_dir=bases)
    assert refused.value.field == "data.dataset_name"
    original.write_parquet(own_tweets)
    events = run(tiny(), own_tweets, tmp_path / "run", base_models_dir=bases)
    assert next(event for event in events if isinstance(event, Prepared)).resumed_from_step == 3


def forget_hashes(checkpoint):
    """Make a checkpoint look like one of a release that recorded no hash of the rows and of the base model."""
    state = json.loads((checkpoint / "state.json").read_text())
    del state["data_hash"], state["base_model_hash"]
    (checkpoint / "state.json").write_text(json.dumps(state))
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint)


def test_checkpoint_of_a_release_without_hashes_still_resumes(tweets, bases, tmp_path):
    stop_at(3, tiny(), tweets, tmp_path, base_models_dir=bases)
    forget_hashes(tmp_path / "artifacts/checkpoints/checkpoint-3")
    events = run(tiny(), tweets, tmp_path, base_models_dir=bases)
    assert next(event for event in events if isinstance(event, Prepared)).resumed_from_step == 3
    state = json.loads((tmp_path / "artifacts/checkpoints/checkpoint-8/state.json").read_text())
    assert len(state["data_hash"]) == len(state["base_model_hash"]) == 64


def test_checkpoint_whose_labels_had_another_order_then_is_refused(own_tweets, bases, tmp_path):
    numbers = {"negative": "2.0", "neutral": "10.0", "positive": "1.0"}
    pl.read_parquet(own_tweets).with_columns(pl.col("label").replace_strict(numbers)).write_parquet(own_tweets)
    stop_at(3, tiny(), own_tweets, tmp_path / "run", base_models_dir=bases)
    forget_hashes(tmp_path / "run/artifacts/checkpoints/checkpoint-3")
    with pytest.raises(ConfigError, match="rows or labels have changed"):
        run(tiny(), own_tweets, tmp_path / "run", base_models_dir=bases)


def test_run_whose_base_model_was_replaced_while_it_was_stopped_is_refused_and_goes_on_once_it_is_restored(
    tweets, bases, tmp_path
):
    weights = Path(shutil.copytree(bases / "tiny", tmp_path / "bases/tiny")) / "model.safetensors"
    original = weights.read_bytes()
    stop_at(3, tiny(), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")
    tensors = load_file(weights)
    tensors["bert.encoder.layer.1.output.dense.bias"][0] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"weights of tiny have changed .* checkpoints are kept") as refused:
        run(tiny(), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")
    assert refused.value.field == "model.name"
    weights.write_bytes(original)
    events = run(tiny(), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")
    assert next(event for event in events if isinstance(event, Prepared)).resumed_from_step == 3


STOPPING = {"num_train_epochs": 20, "early_stopping_patience": 1, "learning_rate": 1e-9}  # ends at step 8 of 80


@pytest.mark.parametrize("killed", ["saving", "at its last checkpoint", "asked to stop in that step"])
def test_run_that_stopped_early_stays_stopped_when_it_is_resumed(tweets, bases, tmp_path, killed):
    config = tiny(**STOPPING)
    unbroken = metrics_of(run(config, tweets, tmp_path / "unbroken", base_models_dir=bases))
    assert unbroken["train"]["stopped_early"] and unbroken["train"]["steps"] == 8
    results = tmp_path / "run"
    if killed == "asked to stop in that step":
        stop_at(8, config, tweets, results, base_models_dir=bases)
    else:
        with closing(train(config, data_file=tweets, results=results, base_models_dir=bases)) as running:
            for event in running:
                at_end = isinstance(event, Checkpointed) and event.step == 8
                if event == StageChanged("saving") or (at_end and killed != "saving"):
                    break
    events = run(config, tweets, results, base_models_dir=bases)
    assert losses(events) == []
    assert "stopped_early" in [event.code for event in events if isinstance(event, Notice)]
    assert metrics_of(events)["train"]["steps"] == 8 and metrics_of(events)["train"]["stopped_early"]
    assert adapter(results) == adapter(tmp_path / "unbroken")


@pytest.mark.parametrize("step", [4, 8])
def test_evaluation_that_is_not_finite_is_an_error_which_keeps_its_checkpoint(
    tweets, bases, tmp_path, monkeypatch, step
):
    unbroken = run(tiny(), tweets, tmp_path / "unbroken", base_models_dir=bases)
    real = Task._all_logits
    evaluations = []

    def logits(self, tokens):
        evaluations.append(tokens)
        result = real(self, tokens)
        result[2, 1] = float("nan") if len(evaluations) * 4 == step else result[2, 1]
        return result

    results = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Task, "_all_logits", logits)
        with pytest.raises(EvaluationNotFiniteError, match=f"Evaluation at step {step}: .* 1 of 16 evaluation rows"):
            run(tiny(), tweets, results, base_models_dir=bases)
    assert (results / f"artifacts/checkpoints/checkpoint-{step}").is_dir() and not (results / "metrics.json").exists()
    # The evaluation that is missing comes first, so that the run ends as if nothing had happened.
    events = run(tiny(), tweets, results, base_models_dir=bases)
    assert curves_of(events) == curves_of(unbroken)
    assert adapter(results) == adapter(tmp_path / "unbroken")
