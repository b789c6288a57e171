"""A run finishes only if its saved model answers raw texts, served and in plain PEFT, as the evaluation did."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import Notice
from engine.data.labelled_rows import Split
from engine.data.tokens import tokenise
from engine.errors import CheckpointDamagedError, SavedModelDiffersError
from engine.models.text_encoding import load_tokenizer
from engine.serve.batch import BatchRow, RowOutput
from engine.serve.merged_model import MergedModel
from engine.serve.model_files import WEIGHTS
from engine.serve.tokenizer import ServedTokenizer
from engine.tests.conftest import metrics_of, run, small
from engine.training import run as run_module
from engine.training import saved_model
from engine.training.checkpoint import save_adapter
from engine.training.saved_model import BF16_TOLERANCE, exceeds


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of 1 to 40 words: short ones are padded, long ones are truncated."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    texts = [f"{'bad' if n % 2 else 'good'} " + "day " * (n % 40) for n in range(120)]
    labels = ["negative" if n % 2 else "positive" for n in range(120)]
    splits = ["train" if n < 80 else "eval" for n in range(120)]
    pl.DataFrame({"text": texts, "label": labels, "split": splits}).write_csv(path)
    return path


@pytest.fixture
def train_tiny(rows: Path, bases: Path, tmp_path: Path) -> Any:
    """Return a function that trains the tiny base model for two steps; it takes sections of the configuration."""

    def train(**sections: Any) -> list[Any]:
        sections = {"model": {"name": "tiny"}} | sections
        sections["lora"] = {"layers_to_transform": None, "target_modules": "all-linear"} | sections.get("lora", {})
        sections["training"] = {"max_steps": 2, "learning_rate": 0.05} | sections.get("training", {})
        config = small(data={"train_samples": None, "eval_samples": None}, **sections)
        return run(config, rows, tmp_path / "run", base_models_dir=bases)

    return train


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lora", [{}, {"use_dora": True}], ids=["shared", "merged"])
def test_answers_of_the_served_model_are_within_the_tolerance_and_in_metrics_json(train_tiny, precision, lora):
    check = metrics_of(train_tiny(lora=lora, training={"precision": precision}))["saved_model"]
    assert check["rows"] == 8 and check["served"]
    assert check["difference"] < (1e-4 if precision == "fp32" else 0.05)


@pytest.mark.slow
def test_tokenizer_that_truncates_at_the_other_end_stops_the_run(train_tiny, monkeypatch):
    encode = ServedTokenizer.encode

    def encode_end(self: ServedTokenizer, texts: list[str], *more: Any) -> Any:
        return encode(self, [" ".join(text.split()[1:]) for text in texts], *more)

    monkeypatch.setattr(ServedTokenizer, "encode", encode_end)
    with pytest.raises(SavedModelDiffersError, match=r"tokenizer reads a text otherwise .*tokens"):
        train_tiny(training={"precision": "fp32"})


@pytest.mark.slow
def test_answer_that_depends_on_padding_stops_the_run(train_tiny, monkeypatch):
    outputs = MergedModel.outputs

    def outputs_of_padded_batch(self: MergedModel, rows: list[BatchRow]) -> list[RowOutput]:
        offset = 0.0 if len(rows) == 1 else 1.0
        return [RowOutput(output.logits + offset) for output in outputs(self, rows)]

    monkeypatch.setattr(MergedModel, "outputs", outputs_of_padded_batch)
    with pytest.raises(SavedModelDiffersError, match="beside a longer one, its logits are up to 1 off"):
        train_tiny(lora={"use_dora": True}, training={"precision": "fp32"})


@pytest.mark.slow
def test_model_that_is_saved_with_other_weights_stops_the_run_and_promises_nothing(train_tiny, monkeypatch, tmp_path):
    def save_with_other_head(model: Any, folder: Path) -> None:
        save_adapter(model, folder)
        tensors = load_file(folder / WEIGHTS)
        changed = {name: tensor + 1 if "classifier" in name else tensor for name, tensor in tensors.items()}
        save_file(changed, folder / WEIGHTS, metadata={"format": "pt"})

    monkeypatch.setattr(run_module, "save_adapter", save_with_other_head)
    with pytest.raises(SavedModelDiffersError, match="when it is served, its logits are up to") as stopped:
        train_tiny(training={"precision": "fp32"})
    assert "resume the run" not in str(stopped.value) and stopped.value.field == "model.name"
    assert not (tmp_path / "run/metrics.json").exists()


@pytest.mark.slow
def test_file_that_changed_after_it_was_written_is_told_and_a_resume_saves_it_again(train_tiny, monkeypatch):
    write = run_module.write_folder

    def write_and_damage(folder: Path, fill: Any) -> None:
        write(folder, fill)
        (folder / "lorasite.json").write_text("{}")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_folder", write_and_damage)
        with pytest.raises(CheckpointDamagedError, match="resume the run to save it again"):
            train_tiny()
    assert metrics_of(train_tiny())["saved_model"]["served"]


@pytest.mark.slow
def test_program_that_reads_texts_otherwise_is_told_in_a_notice(train_tiny, monkeypatch):
    load = saved_model.load_tokenizer

    def load_without_special_tokens(folder: Path, name: str) -> Any:
        tokenizer = load(folder, name)
        return lambda *texts, **options: tokenizer(*texts, add_special_tokens=False, **options)

    monkeypatch.setattr(saved_model, "load_tokenizer", load_without_special_tokens)
    notices = [event for event in train_tiny() if isinstance(event, Notice)]
    assert any(notice.code == "program_differs" and "8 of 8 texts" in notice.message for notice in notices)


@pytest.mark.slow
def test_plain_peft_that_differs_for_one_text_is_told_and_for_all_texts_stops_the_run(train_tiny, monkeypatch):
    plain_logits = saved_model._plain_logits

    def shift(texts: int) -> None:
        def shifted(*arguments: Any) -> Any:
            logits = plain_logits(*arguments).clone()
            logits[:texts] += 1
            return logits

        monkeypatch.setattr(saved_model, "_plain_logits", shifted)

    shift(texts=1)
    notices = [event for event in train_tiny() if isinstance(event, Notice)]
    assert any(notice.code == "program_differs" and "1 of 8 texts" in notice.message for notice in notices)
    shift(texts=8)
    with pytest.raises(SavedModelDiffersError, match="in plain PEFT, its logits are up to 1 off"):
        train_tiny()


@pytest.mark.slow
def test_model_that_does_not_fit_in_fp32_is_checked_in_the_precision_of_the_run(train_tiny, monkeypatch):
    monkeypatch.setattr(saved_model, "free_bytes", lambda: 0)
    check = metrics_of(train_tiny(training={"precision": "bf16"}))["saved_model"]
    assert not check["served"] and check["difference"] < 0.05


def test_shortest_and_longest_text_are_among_those_that_are_checked(bases):
    texts = ["a b c"] * 20 + ["a"] + ["a b c"] * 20 + ["word " * 50] + ["word " * 80]
    tokens = tokenise(texts, load_tokenizer(bases / "tiny", "tiny"), 24)
    logits = np.zeros((len(texts), 2), dtype=np.float32)
    logits[0] = np.nan
    evaluated = saved_model.select_texts(Split(texts, np.zeros(len(texts), np.int64)), tokens, logits)
    assert evaluated.texts[:2] == ["a", "word " * 80] and len(evaluated.texts) == 8
    assert bool(evaluated.logits.isfinite().all()) and [len(ids) for ids in evaluated.ids][:2] == [3, 24]


@pytest.mark.parametrize(
    ("differences", "refused"),
    [
        ([0.003] * 7 + [0.16], False),  # one text whose rounding was unlucky
        ([0.003] * 7 + [0.6], True),
        ([0.003] * 3 + [0.1] * 5, True),  # a wrong model is off for most texts
        ([0.003] * 7 + [float("inf")], True),
    ],
)
def test_evaluation_in_bf16_may_be_far_off_for_one_text_and_not_for_most(differences, refused):
    assert exceeds(torch.tensor(differences), BF16_TOLERANCE) is refused
