"""Preferences: loss and gradients are those of the formula, whatever the step is divided into, and the reference is the base model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import RunConfig
from engine.data.labelled_rows import Rows, Split
from engine.data.preference_tokens import tokenise_preferences
from engine.data.rows_ahead import read_rows
from engine.devices import DevicePlan
from engine.errors import ColumnMissingError, ConfigError, DataUnreadableError
from engine.models.causal import PackedConversations
from engine.models.chat_template import ChatTemplate
from engine.tasks import preference
from engine.tasks.dpo_loss import DpoLoss, wins
from engine.tests.conftest import check_divided_run, check_resumed_run, metrics_of, run
from engine.training.estimate import estimate_run, measure_run
from samples import order_preferences
from testing.language_models import FAMILIES, build_language_model, chat_tokenizer

PLAN = DevicePlan(torch.device("cpu"), torch.float32, "eager", False, 1)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    build_language_model(folder / "llama")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pairs, of which 32 are for training."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    splits = ["train"] * 32 + ["eval"] * 5 + ["test"] * 3
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected, "split": split}
        for (prompt, chosen, rejected, _split), split in zip(order_preferences().iter_rows(), splits, strict=False)
    ]
    return write_lines(path, rows)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config(**sections: Any) -> RunConfig:
    base: dict[str, dict[str, Any]] = {
        "model": {"name": "llama"},
        "lora": {"r": 4, "lora_dropout": 0.0},
        "data": {"dataset_name": "pairs", "max_length": 256},
        "training": {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "precision": "fp32",
            "device": "cpu",
            "learning_rate": 0.01,
            "logging_steps": 1,
        },
        "system": {"num_threads": 1},
    }
    merged = {key: {**values, **sections.get(key, {})} for key, values in base.items()}
    return RunConfig.parse({"task": "preference", **sections, **merged})


def read(path: Path, **settings: Any) -> Rows:
    section = config().data.model_copy(update=settings)
    return read_rows(str(path), section, "preference", 1, path.parent)


def preference_of(rows: Split, row: int = 0) -> Any:
    return json.loads(rows.texts[row])


def shift(model: torch.nn.Module) -> None:
    """Let the adapter change something."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def plain_log_probability(model: Any, task: preference.Task, branch: int) -> float:
    """Return the log-probability of an answer in float64, computed without any packing."""
    tokens = task.train_tokens.branches
    ids = torch.from_numpy(tokens.ids[tokens.offsets[branch] : tokens.offsets[branch + 1]].astype(np.int64))
    is_target = tokens.is_target[tokens.offsets[branch] : tokens.offsets[branch + 1]]
    with torch.no_grad(), task.forward.generating():
        logs = model(input_ids=ids[None]).logits[0].double().log_softmax(dim=-1)
    places = np.flatnonzero(is_target)
    return float(sum(logs[place - 1, ids[place]] for place in places.tolist()))


@pytest.mark.medium
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_loss_is_that_of_the_formula_in_float64(family, tmp_path, data):
    build_language_model(tmp_path / family, family)
    settings = config(training={"dpo_beta": 0.3, "label_smoothing": 0.1, "rpo_alpha": 0.5})
    task = preference.Task(settings, PLAN, tmp_path / family, data, None, 1)
    shift(task.model)
    rows = np.array([3, 0, 7])
    expected = 0.0
    for row in rows.tolist():
        tuned = [plain_log_probability(task.model, task, 2 * row + branch) for branch in range(2)]
        with task.model.disable_adapter():
            base = [plain_log_probability(task.model, task, 2 * row + branch) for branch in range(2)]
        margin = 0.3 * ((tuned[0] - base[0]) - (tuned[1] - base[1]))
        expected += 0.9 * np.log1p(np.exp(-margin)) + 0.1 * np.log1p(np.exp(margin))
        expected -= 0.5 * tuned[0] / int(task.train_tokens.branches.targets[2 * row])
    assert abs(margin) > 0.01
    assert task.loss(rows).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_gradients_of_eight_times_four_pairs_are_those_of_thirty_two(bases, data):
    task = preference.Task(config(training={"rpo_alpha": 0.5}), PLAN, bases / "llama", data, None, 1)
    shift(task.model)
    rows = np.arange(32)
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    gradients = []
    for parts in (1, 8):
        for part in np.split(rows, parts):
            task.backward(part, task.loss_weight(rows))
        gradients.append([parameter.grad.clone() for parameter in trained if parameter.grad is not None])
        task.model.zero_grad()
    assert len(gradients[0]) == len(gradients[1]) > 0
    for whole, divided in zip(*gradients, strict=True):
        assert torch.allclose(whole, divided, rtol=1e-4, atol=1e-6)


@pytest.mark.medium
def test_gradient_is_that_of_the_loss_without_chunks(bases, data, monkeypatch):
    task = preference.Task(config(), PLAN, bases / "llama", data, None, 1)
    shift(task.model)
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    rows = np.array([0, 5])
    task.references[id(task.train_tokens)].of(rows)
    monkeypatch.setattr("engine.models.causal.LOGITS_AT_A_TIME", 5 * 500)
    chunked = torch.autograd.grad(task.loss(rows), trained)

    def log_probabilities(packed: PackedConversations) -> torch.Tensor:
        return task.forward.log_probabilities_of(task.forward.states(packed), packed.targets)

    monkeypatch.setattr(task.forward, "log_probabilities", log_probabilities)
    for one, other in zip(chunked, torch.autograd.grad(task.loss(rows), trained), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.medium
@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_reference_is_the_base_model_whatever_has_been_trained_since(lora, tmp_path, data):
    base = build_language_model(tmp_path / "qwen2", "qwen2")
    untouched = preference.Task(config(), PLAN, base, data, None, 1)
    expected = untouched.references[id(untouched.train_tokens)].of(np.arange(2))
    task = preference.Task(config(lora=lora), PLAN, base, data, None, 1)
    for parameter in task.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05
    trained = [parameter.clone() for parameter in task.model.parameters()]
    actual = task.references[id(task.train_tokens)].of(np.arange(2))
    assert np.abs(actual - expected).max() < 1e-3
    assert all(map(torch.equal, trained, task.model.parameters()))  # it goes on from where it was


@pytest.mark.medium
def test_reference_is_computed_once_and_kept_for_the_next_run(bases, data, tmp_path, monkeypatch):
    first = preference.Task(config(), PLAN, bases / "llama", data, tmp_path, 1)
    computed = first.references[id(first.train_tokens)].of(np.array([4, 2]))
    first.references[id(first.train_tokens)].save()
    second = preference.Task(config(), PLAN, bases / "llama", data, tmp_path, 1)
    reference = second.references[id(second.train_tokens)]
    monkeypatch.setattr(reference, "compute", None)
    assert (reference.of(np.array([2, 4, 2])) == computed[[1, 0, 1]]).all()
    next(tmp_path.glob("reference-*")).write_bytes(b"damaged")
    third = preference.Task(config(), PLAN, bases / "llama", data, tmp_path, 1)
    assert (third.references[id(third.train_tokens)].of(np.array([4])) == computed[:1]).all()


@pytest.mark.medium
def test_evaluation_computes_the_reference_without_turning_dropout_on(bases, data):
    settings = config(lora={"lora_dropout": 0.5})
    task = preference.Task(settings, PLAN, bases / "llama", data, None, 1)
    shift(task.model)
    task.model.train()
    rows = np.arange(3)
    assert (task.evaluate_batch(rows) == task.evaluate_batch(rows)).all()
    assert task.model.training


def test_only_the_two_answers_are_learned_and_never_those_of_the_prompt():
    messages = [("user", "Hi"), ("assistant", "Hello!"), ("user", "Which?")]
    prompt = [{"role": role, "content": content} for role, content in messages]
    answers = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", "a"), ("rejected", "b"))}
    tokenizer = chat_tokenizer()
    text = json.dumps({"prompt": prompt, **answers})
    tokens = tokenise_preferences([text], ChatTemplate(tokenizer, "mine"), 500, {}).branches
    learned = [
        tokenizer.decode(ids[is_target])
        for ids, is_target in (
            (tokens.ids[start:end], tokens.is_target[start:end])
            for start, end in zip(tokens.offsets, tokens.offsets[1:], strict=False)
        )
    ]
    assert learned == ["a<|im_end|>", "b<|im_end|>"]


def test_pair_of_which_one_answer_is_too_long_is_left_out():
    def pair(chosen: str) -> str:
        messages = {
            name: [{"role": role, "content": text}]
            for name, role, text in (
                ("prompt", "user", "Why?"),
                ("chosen", "assistant", chosen),
                ("rejected", "assistant", "No."),
            )
        }
        return json.dumps(messages)

    skipped: dict[str, int] = {}
    template = ChatTemplate(chat_tokenizer(), "mine")
    tokens = tokenise_preferences([pair("x" * 300), pair("Yes.")], template, 60, skipped)
    assert tokens.rows.tolist() == [1] and len(tokens.lengths) == 1 and skipped == {"over_long": 1}
    empty = tokenise_preferences([pair("x" * 300)], template, 60, {})
    assert len(empty.rows) == len(empty.lengths) == empty.longest_answer == 0


def test_rows_are_texts_or_messages_and_others_are_counted(tmp_path):
    user = {"role": "user", "content": "Why?"}
    whole = [user, {"role": "assistant", "content": "Because."}]
    rows: list[dict[str, Any]] = [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": [user], "chosen": whole[1:], "rejected": [{"role": "assistant", "content": "No."}]},
        {"prompt": json.dumps([user]), "chosen": "[1, 2]", "rejected": "No."},
        {"prompt": None, "chosen": whole, "rejected": [user, {"role": "assistant", "content": "No."}]},
        {"prompt": "Why?", "chosen": "Same.", "rejected": "Same."},
        {"prompt": "", "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Why?", "chosen": "", "rejected": "No."},
    ]
    splits = ["train"] * 3 + ["eval"] * 4
    read_back = read(
        write_lines(tmp_path / "d.jsonl", [row | {"split": s} for row, s in zip(rows, splits, strict=True)])
    )
    assert preference_of(read_back.train) == preference_of(read_back.train, 1) == preference_of(read_back.eval)
    assert preference_of(read_back.train, 2)["chosen"] == [{"role": "assistant", "content": "[1, 2]"}]
    assert read_back.skipped_by_reason == {"same_answers": 1, "no_prompt": 1, "no_answer": 1}


def test_rated_answers_are_refused_with_how_they_become_pairs(tmp_path):
    path = write_lines(tmp_path / "kto.jsonl", [{"prompt": "Why?", "completion": "No.", "label": False}] * 4)
    with pytest.raises(DataUnreadableError, match="For each prompt, put a good answer in a column chosen"):
        read(path)
    other = write_lines(tmp_path / "other.jsonl", [{"prompt": "Why?", "answer": "No."}])
    with pytest.raises(ColumnMissingError, match=r"no columns chosen and rejected\. Their columns are: prompt, answer"):
        read(other)


@pytest.mark.slow
def test_run_learns_what_is_preferred_and_tells_it_beside_the_base_model(bases, data, tmp_path):
    settings = config(training={"num_train_epochs": 6})
    events = run(settings, data, tmp_path / "run", base_models_dir=bases, cache_dir=tmp_path / "cache")
    metrics = metrics_of(events)
    scores = metrics["eval"]
    assert scores["preference_accuracy"] == 1.0 and scores["loss"] < 0.5 and metrics["result"]["learned"]
    assert scores["reward_margin"] == pytest.approx(scores["reward_chosen"] - scores["reward_rejected"])
    assert metrics["test"].keys() == scores.keys()
    base = metrics["baseline"]
    assert base["base_preference_accuracy"] == pytest.approx(0.5) and base["base_loss"] == pytest.approx(np.log(2))
    assert metrics["answers"][0].keys() == {"prompt", "expected", "base", "tuned"}
    assert metrics["saved_model"]["difference"] < 1e-3
    assert len(list((tmp_path / "cache").glob("reference-*.safetensors"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_resumed_run_ends_as_an_unbroken_one(bases, data, tmp_path, cached):
    settings = config(lora={"lora_dropout": 0.1}, training={"num_train_epochs": 2})
    cache = {"cache_dir": tmp_path / "cache"} if cached else {}
    check_resumed_run(settings, data, tmp_path, stop_at=5, base_models_dir=bases, **cache)


@pytest.mark.slow
def test_step_that_needs_too_much_memory_is_divided_with_the_same_result(bases, data, tmp_path, monkeypatch):
    check_divided_run(preference.Task, config(), data, tmp_path, monkeypatch, base_models_dir=bases)


@pytest.mark.slow
def test_estimate_measures_a_run(bases, data):
    settings = config()
    measured = measure_run(settings, data_file=data, base_models_dir=bases)
    assert measured.steps_per_epoch == 4 and estimate_run(settings, measured).seconds > 0


def test_settings_of_preferences_are_refused_elsewhere_and_others_here():
    changed = {"dpo_beta": 0.2, "label_smoothing": 0.1, "rpo_alpha": 1.0}
    with pytest.raises(ConfigError) as refused:
        RunConfig.parse({"task": "causal_lm", "training": changed})
    assert {problem.field for problem in refused.value.problems} == {f"training.{name}" for name in changed}
    with pytest.raises(ConfigError) as refused:
        config(model={"num_labels": 3}, training={"loss": "cross_entropy", "class_weights": "balanced"})
    fields = {problem.field for problem in refused.value.problems}
    assert fields == {"model.num_labels", "training.loss", "training.class_weights"}


def test_margins_of_zero_prefer_neither_answer():
    assert wins(torch.tensor([0.3, 0.0, -2.0])).tolist() == [1.0, 0.5, 0.0]
    loss = DpoLoss(0.1, 0.0, 0.0)
    zeros = torch.zeros(1, 2)
    assert loss.losses(zeros, zeros, torch.ones(1)).item() == pytest.approx(np.log(2))
