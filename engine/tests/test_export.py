"""Exported files answer as the served model and as plain PEFT do, for every task type, and are whole or not there."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import AlbertConfig, AutoTokenizer, BertConfig, DistilBertConfig, RobertaConfig

from engine.errors import ExportDiffersError, ExportRefusedError
from engine.export import Format, export_model, packages, writing
from engine.export.__main__ import main
from engine.export.comparison import ExportCheck, random_texts, require_equal
from engine.export.exported_model import load_exported
from engine.models.loading import HeadKind, attach_adapter, load_classifier_to_serve
from engine.models.text_encoding import has_token_types
from engine.serve.answers import EntitiesPrediction, LabelsPrediction, Prediction, ScorePrediction
from engine.serve.model_files import read_info
from engine.serve.predictor import Predictor
from engine.task_types import TaskType, is_language_model
from testing.programs import run_program
from testing.small_models import (
    ALBERT_SPECIAL,
    BERT_SPECIAL,
    DISTILBERT_SIZES,
    ROBERTA_SPECIAL,
    SIZES,
    save_model,
    train_bpe,
    train_unigram,
    train_wordpiece,
)

TASKS: list[TaskType] = [task for task in get_args(TaskType) if not is_language_model(task)]
FP32_FORMATS: tuple[Format, ...] = ("safetensors", "onnx")
SPREAD: dict[str, Any] = {"initializer_range": 0.2}  # so that answers differ from text to text
FAMILIES: dict[str, tuple[Any, Any, dict[str, str], list[str]]] = {
    "bert": (BertConfig(**SIZES, **SPREAD), train_wordpiece, BERT_SPECIAL, ["query", "value"]),
    "distilbert": (DistilBertConfig(**DISTILBERT_SIZES, **SPREAD), train_wordpiece, BERT_SPECIAL, ["q_lin", "v_lin"]),
    "roberta": (
        RobertaConfig(**SIZES | {"max_position_embeddings": 130, "type_vocab_size": 1}, **SPREAD),
        train_bpe,
        ROBERTA_SPECIAL,
        ["query", "value"],
    ),
    "albert": (AlbertConfig(**SIZES, **SPREAD, embedding_size=32), train_unigram, ALBERT_SPECIAL, ["query", "value"]),
}
TOKENIZERS = {  # BERT's gives token types
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "albert": "AlbertTokenizer",
}
SENTENCE = "the train was late again , and nobody told us why . we had to wait for two hours in rain ! thanks"
needs_packages = pytest.mark.skipif(
    "CI" not in os.environ and not all(find_spec(name) for name in packages.ONNX_PACKAGES),
    reason="requirements-export.txt is not installed",
)
EVERY_FORMAT = [
    pytest.param(format, marks=[] if format == "safetensors" else [needs_packages]) for format in FP32_FORMATS
]
TEXT = "we had to wait for two hours, thanks"
LABELS = ["bad", "good", "odd"]
ANSWERS: dict[TaskType, dict[str, Any]] = {
    "sequence_classification": {"temperature": 1.7, "confident_from": 0.6},
    "multi_label_classification": {"temperatures": [0.7, 1.2, 1.9], "thresholds": [0.3, 0.55, 0.6]},
    "regression": {"score_mean": 3.5, "score_deviation": 1.3},
    "token_classification": {},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    random = np.random.default_rng(1)
    texts = [" ".join(random.choice(SENTENCE.split(), 12)) for _ in range(200)]
    torch.manual_seed(0)
    for name, (config, train_tokenizer, special, _targets) in FAMILIES.items():
        save_model(folder / name, config, train_tokenizer(texts), special, TOKENIZERS[name])
    return folder


@cache
def make_model(bases: Path, task: TaskType, family: str = "bert", text_pairs: bool = False) -> Path:
    """Return the folder of a final model with a random adapter, made once."""
    from peft import LoraConfig, get_peft_model

    folder = bases.parent / f"final-{task}-{family}-{text_pairs}"
    head: HeadKind = "token" if task == "token_classification" else "sequence"
    labels = [] if task == "regression" else LABELS
    names = ["score"] if task == "regression" else labels
    if head == "token":
        names = ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]
    torch.manual_seed(2)
    base, _missing = load_classifier_to_serve(bases / family, len(names), head)
    kind = "TOKEN_CLS" if head == "token" else "SEQ_CLS"
    heads = [name for name, _module in base.named_children() if name in ("classifier", "pre_classifier")]
    targets = FAMILIES[family][3]
    model: Any = get_peft_model(base, LoraConfig(task_type=kind, r=4, target_modules=targets, modules_to_save=heads))
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(bases / family, split_special_tokens=True)
    tokenizer.save_pretrained(folder)
    facts = {
        "task": task,
        "base_model": family,
        "labels": labels,
        "max_length": 40,
        "id2label": dict(enumerate(names)),
        "text_pairs": text_pairs,
        "token_types": has_token_types(base.config) and "token_type_ids" in tokenizer.model_input_names,
        "answers": ANSWERS[task],
    }
    (folder / "lorasite.json").write_text(json.dumps(facts))
    return folder


def plain_logits(folder: Path, bases: Path, text: str, pair: str | None = None) -> torch.Tensor:
    """Return what transformers and PEFT compute for one text."""
    info = read_info(folder)
    base, _missing = load_classifier_to_serve(bases / info.base_model, info.outputs, info.head)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, pair, truncation=True, max_length=info.max_length, return_tensors="pt")
    if not info.token_types:
        inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        return attach_adapter(base, folder).eval()(**inputs).logits[0]


def run_readme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the program of an export's README in its folder; return its `predict`."""
    monkeypatch.chdir(folder)
    return run_program((folder / "README.md").read_text().split("```python\n")[1].split("```")[0])


def not_written(folder: Path) -> bool:
    """Return whether a folder has neither an export nor a draft of one."""
    return not (folder / "out").exists() and not list(folder.glob(".draft-*"))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", EVERY_FORMAT)
def test_exported_files_answer_as_the_served_model_and_plain_peft(task, format, bases, tmp_path, monkeypatch):
    final_model = make_model(bases, task)
    check = export_model(final_model, tmp_path / "out", format, base_models_dir=bases)
    assert check.texts == 200 and check.largest_change <= 1e-3
    assert check.equal_answers is None if task == "regression" else (check.equal_answers or 0) >= 0.999
    facts = json.loads((tmp_path / "out/export.json").read_text())
    assert facts["format"] == format and facts["check"]["largest_change"] == check.largest_change
    assert not (tmp_path / "out/adapter_config.json").exists()

    exported = load_exported(tmp_path / "out", format)
    encoded = exported.encode([TEXT], None)
    outputs = exported.model.outputs(encoded.rows(None))
    plain = plain_logits(final_model, bases, TEXT)
    torch.testing.assert_close(outputs[0].logits, plain, rtol=1e-3, atol=1e-4)

    (answer,) = Predictor(bases).predict(final_model, [TEXT]).predictions
    (exported_answer,) = encoded.answers(outputs, exported.info)
    program_answer = run_readme(tmp_path / "out", monkeypatch)(TEXT)
    if isinstance(answer, Prediction) and isinstance(exported_answer, Prediction):
        assert exported_answer.confident == answer.confident is not None
        assert exported_answer.probabilities == pytest.approx(answer.probabilities, abs=1e-3)
        label, probabilities = program_answer
        assert label == answer.labels[answer.label]
        assert list(probabilities.values()) == pytest.approx(answer.probabilities, abs=1e-3)
    elif isinstance(answer, LabelsPrediction):
        assert exported_answer.chosen == answer.chosen  # type: ignore[union-attr]
        chosen, probabilities = program_answer
        assert chosen == list(answer.chosen)
        assert list(probabilities.values()) == pytest.approx(answer.probabilities, abs=1e-3)
    elif isinstance(answer, ScorePrediction):
        assert program_answer == pytest.approx(answer.score, abs=1e-3)
    else:
        assert isinstance(answer, EntitiesPrediction) and isinstance(exported_answer, EntitiesPrediction)
        places = [(each.start, each.end, each.label) for each in answer.entities]
        assert places == [(each.start, each.end, each.label) for each in exported_answer.entities]
        assert places == [(each["start"], each["end"], each["label"]) for each in program_answer]


@pytest.mark.slow
@pytest.mark.parametrize("format", EVERY_FORMAT)
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_answered_by_the_exported_files_of_every_family(family, format, bases, tmp_path, monkeypatch):
    final_model = make_model(bases, "sequence_classification", family, text_pairs=True)
    check = export_model(final_model, tmp_path / "out", format, base_models_dir=bases)
    assert check.largest_change <= 1e-3 and (check.equal_answers or 0) >= 0.999
    expected = (plain_logits(final_model, bases, TEXT, "nobody told us") / 1.7).softmax(-1)
    _label, probabilities = run_readme(tmp_path / "out", monkeypatch)(TEXT, "nobody told us")
    assert list(probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.slow
def test_merged_model_is_loaded_by_transformers_alone_with_its_labels_and_calibration(bases, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    for task, auto_class, problem in (
        ("multi_label_classification", AutoModelForSequenceClassification, "multi_label_classification"),
        ("token_classification", AutoModelForTokenClassification, None),
    ):
        final_model = make_model(bases, task)
        export_model(final_model, tmp_path / task, "safetensors", base_models_dir=bases, texts=[TEXT])
        model, loading = auto_class.from_pretrained(tmp_path / task, output_loading_info=True)
        assert not loading["missing_keys"] and not loading["unexpected_keys"]
        assert model.config.problem_type == problem
        facts = json.loads((tmp_path / task / "lorasite.json").read_text())
        assert list(model.config.id2label.values()) == list(facts["id2label"].values())
        assert facts["answers"] == ANSWERS[task]  # type: ignore[index]


def test_random_texts_are_short_long_and_always_the_same(bases):
    tokenizer = AutoTokenizer.from_pretrained(bases / "bert")
    texts = random_texts(tokenizer, 40, 200)
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    assert min(lengths) <= 4 and max(lengths) > 40 and texts == random_texts(tokenizer, 40, 200)


@pytest.mark.medium
def test_export_reports_its_progress_and_ends_when_it_is_told_to(bases, tmp_path):
    final_model = make_model(bases, "sequence_classification")
    reports: list[tuple[str, int, int]] = []

    def stop_half_way(stage: str, done: int = 0, total: int = 0) -> None:
        reports.append((stage, done, total))
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_model(final_model, tmp_path / "out", "safetensors", base_models_dir=bases, report_progress=stop_half_way)
    assert reports[0] == ("writing", 0, 0) and reports[1] == ("comparing", 0, 400) and reports[-1][1] > 200
    assert not_written(tmp_path)


def test_failed_export_leaves_nothing(bases, tmp_path, monkeypatch):
    final_model = make_model(bases, "sequence_classification")

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.export.writing.write_readme", stop)
    with pytest.raises(KeyboardInterrupt):
        export_model(final_model, tmp_path / "out", "safetensors", base_models_dir=bases, texts=[TEXT])
    assert not_written(tmp_path)


def test_export_that_answers_otherwise_is_refused_and_leaves_nothing(bases, tmp_path, monkeypatch):
    final_model = make_model(bases, "sequence_classification")

    write: Any = writing.write_files

    def write_other_weights(model: Any, *more: Any) -> None:
        torch.nn.init.zeros_(model.classifier.weight)
        write(model, *more)

    monkeypatch.setattr(writing, "write_files", write_other_weights)
    with pytest.raises(ExportDiffersError, match="do not answer as the model does, so they were removed"):
        export_model(final_model, tmp_path / "out", "safetensors", base_models_dir=bases, texts=[TEXT])
    assert not_written(tmp_path)


@pytest.mark.parametrize(
    ("share", "change", "refused"), [(1.0, 1e-3, False), (0.98, 1e-5, False), (0.96, 1e-5, True), (1.0, 2e-3, True)]
)
def test_one_text_of_few_may_lie_on_a_threshold(share, change, refused):
    check = ExportCheck("safetensors", 50, share, change)
    if not refused:
        return require_equal(check)
    with pytest.raises(ExportDiffersError):
        require_equal(check)


def test_second_export_over_an_existing_folder_is_refused(bases, tmp_path):
    final_model = make_model(bases, "sequence_classification")
    export_model(final_model, tmp_path / "out", "safetensors", base_models_dir=bases, texts=[TEXT])
    before = (tmp_path / "out/manifest.json").read_bytes()
    with pytest.raises(ExportRefusedError, match="exists already and was left as it is"):
        export_model(final_model, tmp_path / "out", "safetensors", base_models_dir=bases, texts=["other"])
    assert (tmp_path / "out/manifest.json").read_bytes() == before
    with pytest.raises(ExportRefusedError, match="does not exist"):
        export_model(final_model, tmp_path / "no/out", "safetensors", base_models_dir=bases)


def test_texts_that_do_not_fit_the_model_are_refused(bases, tmp_path):
    final_model = make_model(bases, "sequence_classification")
    with pytest.raises(ExportRefusedError, match="trained on single texts"):
        export_model(final_model, tmp_path / "out", "safetensors", base_models_dir=bases, texts=["a"], text_pairs=["b"])
    with pytest.raises(ExportRefusedError, match="no text to compare"):
        export_model(final_model, tmp_path / "out", "safetensors", base_models_dir=bases, texts=[])


@pytest.mark.medium
def test_command_prints_the_figures_or_the_reason(bases, tmp_path, capsys):
    final_model = make_model(bases, "sequence_classification", text_pairs=True)
    (tmp_path / "pairs.tsv").write_text("the train\twas late\nthanks\tagain\n\n")
    arguments = [str(final_model), str(tmp_path / "out"), "--base-models", str(bases)]
    assert main([*arguments, "--check", str(tmp_path / "pairs.tsv")]) == 0
    assert "100.00% of 2 texts have the same labels" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--check", str(tmp_path / "gone.txt")]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_missing_packages_are_named_before_anything_is_computed(bases, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(ExportRefusedError, match="onnx, onnxruntime, onnxscript"):
        export_model(tmp_path / "none", tmp_path / "out", "onnx", base_models_dir=bases)


@needs_packages
@pytest.mark.slow
def test_int8_weights_are_smaller_and_their_change_is_measured(bases, tmp_path, monkeypatch, capsys):
    final_model = make_model(bases, "sequence_classification")
    export_model(final_model, tmp_path / "fp32", "onnx", base_models_dir=bases, texts=[TEXT])
    command = [str(final_model), str(tmp_path / "out"), "--format", "onnx-int8", "--base-models", str(bases)]
    assert main(command) == 0
    facts = json.loads((tmp_path / "out/export.json").read_text())
    change = facts["check"]["largest_change"]
    assert 1e-5 < change < 0.2 and facts["check"]["equal_answers"] > 0.9 and facts["limits"] is None
    assert f"by more than {change:.2g}." in capsys.readouterr().out
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("out", "fp32")]
    assert sizes[0] < 0.7 * sizes[1] and not list((tmp_path / "out").glob("fp32*"))
    _label, probabilities = run_readme(tmp_path / "out", monkeypatch)(TEXT)
    expected = (plain_logits(final_model, bases, TEXT) / 1.7).softmax(-1)
    assert list(probabilities.values()) == pytest.approx(expected.tolist(), abs=2 * change)


@needs_packages
@pytest.mark.slow
def test_weights_too_large_for_one_onnx_file_get_a_second_one(bases, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.export.onnx_files.LARGEST_FILE", 1000)
    final_model = make_model(bases, "regression")
    assert export_model(final_model, tmp_path / "out", "onnx", base_models_dir=bases).largest_change <= 1e-3
    assert (tmp_path / "out/model.onnx.data").stat().st_size > 100_000


@pytest.mark.process
def test_ended_export_leaves_nothing(bases, tmp_path):
    command = [sys.executable, "-m", "engine.export", make_model(bases, "regression"), tmp_path / "out"]
    export = subprocess.Popen([*command, "--base-models", bases], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    while not list(tmp_path.glob(".draft-*")):
        assert export.poll() is None
        time.sleep(0.01)
    export.terminate()
    assert b"Stopped, and nothing was written." in export.communicate(timeout=60)[1]
    assert export.returncode == 1 and not_written(tmp_path)


@pytest.mark.process
def test_what_a_killed_export_left_goes_with_the_next_one(bases, tmp_path):
    final_model = make_model(bases, "regression")
    command = [sys.executable, "-m", "engine.export", final_model, tmp_path / "out", "--base-models", bases]
    export = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    while not list(tmp_path.glob(".draft-*")):
        assert export.poll() is None
        time.sleep(0.01)
    export.kill()
    export.wait(timeout=60)
    other = tmp_path / ".draft-0123456789abcdef0123456789abcdef-another-out"  # of another target
    other.mkdir()
    assert len(list(tmp_path.glob(".draft-*"))) == 2
    export_model(final_model, tmp_path / "out", "safetensors", base_models_dir=bases, texts=[TEXT])
    assert list(tmp_path.glob(".draft-*")) == [other] and (tmp_path / "out").is_dir()
