"""Language models: packed conversations compute what single ones do, and gradients do not depend on how a step is divided."""

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from engine import RunConfig, train
from engine.config_sections import LoraSection
from engine.data.conversation_tokens import ConversationTokens, tokenise_conversations
from engine.data.conversations import to_json
from engine.devices import DevicePlan
from engine.errors import (
    BaseModelUnavailableError,
    ChatTemplateError,
    CheckpointDamagedError,
    ConfigError,
    TextsTooLongError,
)
from engine.events import StepDone
from engine.kernels import int8, linear, panels
from engine.kernels.decoder import _Saved as Saved
from engine.kernels.decoder import fuse_layers
from engine.models.base_model_head import Head
from engine.models.causal import CausalForward, PackedConversations
from engine.models.chat_template import ChatTemplate
from engine.models.loading import add_adapter, attach_adapter, load_language_model
from engine.models.supported_types import check_type
from engine.tasks import causal_lm
from engine.tasks.answers import Answers
from engine.tests.conftest import check_divided_run, check_resumed_run, metrics_of, run
from engine.training.estimate import estimate_run, measure_run
from engine.training.loop import create_optimizer
from samples import orders
from testing.chat_templates import CHATML, NO_END
from testing.language_models import FAMILIES, build_language_model, chat_tokenizer, conversation, write_conversations

PLAN = DevicePlan(torch.device("cpu"), torch.float32, "eager", False, 1)
LARGE = 1_000_000  # numbers, instead of counting those of a fused layer
CONVERSATIONS = [
    conversation("How many?", "Three.", "x" * number, "what a strange question " * 2) for number in (1, 30, 9)
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    build_language_model(folder / "llama", head_dim=16)  # as narrow as layers may be that are computed whole
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "orders.jsonl"
    splits = ["train"] * 32 + ["eval"] * 6 + ["test"] * 4
    return write_conversations(path, orders()["messages"].to_list()[:42], splits)


def config(**sections: Any) -> RunConfig:
    base: dict[str, dict[str, Any]] = {
        "model": {"name": "llama"},
        "lora": {"r": 4, "lora_dropout": 0.0},
        "data": {"dataset_name": "orders", "max_length": 256},
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
    return RunConfig.parse({"task": "causal_lm", **sections, **merged})


def tokens_of(conversations: list[Any]) -> ConversationTokens:
    return tokenise_conversations(
        [to_json(each) for each in conversations], ChatTemplate(chat_tokenizer(), "mine"), 500, {}
    )


def adapted_model(folder: Path, plan: DevicePlan = PLAN, **lora: Any) -> Any:
    """Return a model with an adapter that changes something."""
    base = load_language_model(folder, "mine", plan)
    settings = LoraSection(r=4, target_modules="all-linear", **lora)
    model = add_adapter(base, settings, Head([], "kept", []), "mine", 0, "causal")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_packed_logits_are_those_of_each_conversation_alone(family, tmp_path):
    model = adapted_model(build_language_model(tmp_path / family, family))
    tokens = tokens_of(CONVERSATIONS)
    with torch.no_grad():
        alone = [
            model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
            for ids in np.split(tokens.ids, tokens.offsets[1:-1])
        ]
        forward = CausalForward(model)
        packed = PackedConversations.pack(tokens, np.arange(3))
        states = forward.states(packed)
        assert (forward.logits(states) - torch.cat(alone)[packed.sources]).abs().max() <= 1e-5
        with forward.generating():  # its own attention comes back
            again = model(torch.from_numpy(tokens.ids[: tokens.offsets[1]].astype(np.int64))[None]).logits[0]
    assert (again - alone[0]).abs().max() <= 1e-5


def test_tokens_are_shared_unless_dropout_lets_them_differ(bases):
    packed = PackedConversations.pack(tokens_of(CONVERSATIONS), np.arange(3))
    for dropout in (0.0, 0.1):
        forward = CausalForward(adapted_model(bases / "llama", lora_dropout=dropout))
        forward.model.train()
        assert (forward.layout_of(packed).sharing is None) == bool(dropout)
        forward.model.eval()
        assert forward.layout_of(packed).sharing is not None


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_each_family_learns_with_each_kind_of_adapter(family, tmp_path):
    base = build_language_model(tmp_path / family, family)
    packed = PackedConversations.pack(tokens_of(CONVERSATIONS), np.arange(3))
    kinds: list[dict[str, Any]] = [{}, {"use_rslora": True}, {"use_dora": True}, {"loraplus_lr_ratio": 8}]
    for lora in kinds:
        model = adapted_model(base, **lora)
        forward = CausalForward(model)
        optimizer = create_optimizer(model, config(lora=lora, training={"learning_rate": 1e-3}), PLAN)
        losses = []
        for _step in range(3):
            losses.append(forward.sum_of_losses(packed))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        assert losses[-1].item() < losses[0].item() - 2, lora
        assert {group["ratio"] for group in optimizer.param_groups} == {1.0, lora.get("loraplus_lr_ratio", 1.0)}


@pytest.mark.parametrize("lora", [{}, {"use_rslora": True, "use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_chunked_loss_has_the_gradients_of_the_plain_one(lora, bases, tmp_path, monkeypatch):
    base = bases / "llama"
    if lora.get("modules_to_save"):  # of a head that does not share its weights with the embedding
        base = build_language_model(tmp_path / "qwen2", "qwen2")
    monkeypatch.setattr("engine.models.causal.LOGITS_AT_A_TIME", 5 * 500)
    model = adapted_model(base, **lora)
    forward = CausalForward(model)
    packed = PackedConversations.pack(tokens_of(CONVERSATIONS), np.arange(3))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(list(forward.chunks(forward.states(packed), packed.targets))) > 2
    chunked = torch.autograd.grad(forward.sum_of_losses(packed), trained)
    plain_loss = cross_entropy(forward.logits(forward.states(packed)), packed.targets, reduction="sum")
    for one, other in zip(chunked, torch.autograd.grad(plain_loss, trained), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.medium
@pytest.mark.skipif(not int8.available(), reason="needs a CPU with VNNI")
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_int8_products_have_about_the_loss_and_gradients_of_bf16(bases, dropout):
    packed = PackedConversations.pack(tokens_of(CONVERSATIONS), np.arange(3))
    results = []
    for uses_int8 in (False, True):
        model = adapted_model(bases / "llama", replace(PLAN, dtype=torch.bfloat16), lora_dropout=dropout).train()
        forward = CausalForward(model, uses_int8)
        torch.manual_seed(0)
        loss = forward.sum_of_losses(packed)
        loss.backward()
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad]
        results.append((loss.item(), torch.cat(gradients)))
        with torch.no_grad(), model.disable_adapter():
            assert torch.isfinite(forward.states(packed)).all()
    (plain_loss, plain), (int8_loss, gradient) = results
    assert int8_loss == pytest.approx(plain_loss, rel=0.02 if not dropout else 0.05)
    if not dropout:  # the masks of PEFT's layers are other ones
        assert torch.nn.functional.cosine_similarity(plain, gradient, dim=0) > 0.97


@pytest.mark.medium
@pytest.mark.skipif(not int8.available(), reason="needs a CPU with VNNI")
def test_int8_is_smoothed_by_the_first_conversations(bases):
    tokens = tokens_of(CONVERSATIONS)
    packed = PackedConversations.pack(tokens, np.arange(3))
    errors = []
    for sample in (None, PackedConversations.first(tokens, 60)):
        model = adapted_model(bases / "llama", replace(PLAN, dtype=torch.bfloat16)).train()
        for (
            name,
            parameter,
        ) in model.named_parameters():  # one channel behind each norm is large, and its weights are small
            if name.endswith("layernorm.weight"):
                parameter.data[5] *= 200
            elif any(
                part in name for part in ("q_proj.base", "k_proj.base", "v_proj.base", "gate_proj.base", "up_proj.base")
            ):
                parameter.data[:, 5] /= 200
        exact = CausalForward(model).states(packed).detach()
        in_int8 = CausalForward(model, True, sample).states(packed).detach()
        errors.append(float((in_int8 - exact).float().norm()))
    assert errors[1] < errors[0] / 2


def test_first_tokens_end_within_a_conversation():
    tokens = tokens_of(CONVERSATIONS)
    count = int(tokens.lengths[0]) + 7
    first = PackedConversations.first(tokens, count)
    assert first.lengths == [int(tokens.lengths[0]), 7]
    assert first.ids[0].tolist() == tokens.ids[:count].tolist()
    assert first.positions[0, -7:].tolist() == [*range(7)]
    assert PackedConversations.first(tokens, 10**6).lengths == tokens.lengths.tolist()


@pytest.mark.medium
@pytest.mark.skipif(not panels.has_bf16_products(), reason="needs a CPU with AVX-512 BF16")
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_fused_decoder_layers_have_the_gradients_of_layers_of_transformers(family, tmp_path, monkeypatch):
    base = build_language_model(tmp_path / family, family, head_dim=16)
    packed = PackedConversations.pack(tokens_of(CONVERSATIONS), np.arange(3))
    fusers: list[Any] = [fuse_layers, lambda *_: []]
    gradients = []
    for fuse in fusers:
        monkeypatch.setattr(linear, "fuse_layers", fuse)
        model = adapted_model(base, replace(PLAN, dtype=torch.bfloat16)).train()
        for name, bias in model.named_parameters():  # those of a new model are zero
            if name.endswith("proj.base_layer.bias"):
                torch.nn.init.constant_(bias, 0.1)
        forward = CausalForward(model, int8=True)
        assert forward.linears is not None and len(forward.linears.fused) == (2 if fuse is fuse_layers else 0)
        forward.sum_of_losses(packed).backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == 28
    for fused, plain in zip(*gradients, strict=True):  # each is rounded to bf16 elsewhere
        assert torch.nn.functional.cosine_similarity(fused.flatten(), plain.flatten(), dim=0) > 0.98


@pytest.mark.medium
@pytest.mark.parametrize(
    ("family", "uses_int8", "dropout"),
    [*((family, False, 0.2) for family in sorted(FAMILIES)), ("llama", True, 0.2), ("qwen3", True, 0.2)],
)
def test_layers_that_are_computed_again_have_the_same_gradients_and_keep_less(family, uses_int8, dropout, tmp_path):
    if uses_int8 and not int8.available():
        pytest.skip("needs a CPU with VNNI")
    base = build_language_model(tmp_path / family, family, head_dim=16)
    packed = PackedConversations.pack(tokens_of(CONVERSATIONS), np.arange(3))
    plan = replace(PLAN, dtype=torch.bfloat16) if uses_int8 else PLAN
    forward = CausalForward(adapted_model(base, plan, lora_dropout=dropout).train(), uses_int8)
    trained = [parameter for parameter in forward.model.parameters() if parameter.requires_grad]
    results = []
    for recomputes in (False, True):
        if recomputes:
            forward.recompute_layers()
        forward.model.zero_grad()
        kept: list[int] = []
        torch.manual_seed(0)

        def count(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = forward.sum_of_losses(packed)
        kept.append(sum(LARGE for each in gc.get_objects() if type(each) is Saved))  # what fused layers keep elsewhere
        loss.backward()
        results.append((sum(kept), [parameter.grad for parameter in trained]))
    (kept_all, plain), (kept_inputs, again) = results
    assert kept_inputs < kept_all / 2
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(plain, again, strict=True))


@pytest.mark.slow
def test_row_that_is_too_much_alone_is_trained_with_its_layers_computed_again(bases, data, tmp_path, monkeypatch):
    plain = run(config(), data, tmp_path / "plain", base_models_dir=bases)
    backward = causal_lm.Task.backward

    def limited(self: Any, rows: np.ndarray, weight: float) -> Any:
        if not self.memory.recomputes:
            raise MemoryError
        return backward(self, rows, weight)

    monkeypatch.setattr(causal_lm.Task, "backward", limited)
    again = run(config(), data, tmp_path / "again", base_models_dir=bases)
    assert metrics_of(again)["eval"]["loss"] == pytest.approx(metrics_of(plain)["eval"]["loss"], rel=1e-4)
    assert "gradient_checkpointing" in [notice["code"] for notice in metrics_of(again)["notices"]]


@pytest.mark.slow
def test_gradients_of_eight_times_four_conversations_are_those_of_thirty_two(bases, data):
    task = causal_lm.Task(config(), PLAN, bases / "llama", data, None, 1)
    rows = np.arange(32)
    weight = task.loss_weight(rows)
    assert weight == task.train_tokens.is_target.sum()
    gradients = []
    for parts in (1, 8):
        losses = [task.backward(part, weight) for part in np.split(rows, parts)]
        trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        gradients.append([parameter.grad.clone() for parameter in trained if parameter.grad is not None])
        task.model.zero_grad()
        assert float(sum(loss.item() for loss in losses)) == pytest.approx(task.loss(rows).item() / weight, rel=1e-5)
    assert len(gradients[0]) == len(gradients[1]) > 0
    for whole, divided in zip(*gradients, strict=True):
        assert torch.allclose(whole, divided, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_run_learns_and_keeps_answers_of_base_and_tuned_model(bases, data, tmp_path):
    events = run(config(training={"num_train_epochs": 8}), data, tmp_path / "run", base_models_dir=bases)
    metrics = metrics_of(events)
    assert metrics["eval"]["loss"] < metrics["baseline"]["base_loss"] - 1
    assert metrics["eval"]["perplexity"] == pytest.approx(np.exp(metrics["eval"]["loss"]))
    assert metrics["result"]["learned"] and metrics["saved_model"]["difference"] < 1e-3
    assert {"token_accuracy", "exact_match", "json_valid"} <= metrics["eval"].keys() == metrics["test"].keys()
    assert len(metrics["answers"]) == 6 and json.loads(metrics["answers"][0]["expected"])
    assert metrics["answers"][0].keys() == {"prompt", "expected", "base", "tuned"}
    folder = tmp_path / "run/artifacts/final_model"
    tuned = attach_adapter(load_language_model(bases / "llama", "mine", PLAN), folder)
    assert tuned.peft_config["default"].task_type == "CAUSAL_LM" and (folder / "chat_template.jinja").is_file()


@pytest.mark.slow
def test_run_on_plain_texts_learns_to_continue_them(bases, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\f".join(f"Day {i}: " + "the sun rose over the sea. " * 8 for i in range(60)), encoding="utf-8")
    settings = config(data={"max_length": 64}, training={"num_train_epochs": 4})
    metrics = metrics_of(run(settings, path, tmp_path / "run", base_models_dir=bases))
    assert metrics["data"]["train_rows"] + metrics["data"]["eval_rows"] == 60 and metrics["data"]["skipped_rows"] == 0
    assert metrics["eval"]["loss"] < metrics["baseline"]["base_loss"] - 1 and metrics["result"]["learned"]
    assert metrics["answers"] == [] and metrics["saved_model"]["difference"] < 1e-3


@pytest.mark.slow
def test_resumed_run_ends_as_an_unbroken_one(bases, data, tmp_path):
    settings = config(lora={"lora_dropout": 0.1}, training={"num_train_epochs": 2})
    check_resumed_run(settings, data, tmp_path, stop_at=2, base_models_dir=bases)


@pytest.mark.slow
def test_step_that_needs_too_much_memory_is_divided_with_the_same_result(bases, data, tmp_path, monkeypatch):
    check_divided_run(causal_lm.Task, config(), data, tmp_path, monkeypatch, base_models_dir=bases)


@pytest.mark.slow
def test_estimate_measures_a_run(bases, data):
    settings = config()
    measured = measure_run(settings, data_file=data, base_models_dir=bases)
    assert measured.steps_per_epoch == 4 and estimate_run(settings, measured).seconds > 0


@pytest.mark.slow
def test_changed_file_of_the_final_model_ends_the_run(bases, data, tmp_path, monkeypatch):
    verify = causal_lm.Task.verify

    def damage(self: Any, folder: Path) -> Any:
        (folder / "tokenizer_config.json").write_text("{}")
        return verify(self, folder)

    monkeypatch.setattr(causal_lm.Task, "verify", damage)
    with pytest.raises(CheckpointDamagedError, match="The checkpoints are kept"):
        run(config(), data, tmp_path / "run", base_models_dir=bases)


@pytest.mark.slow
def test_conversations_that_are_too_long_are_left_out_with_a_notice_or_refused(bases, data, tmp_path):
    shortened = config(data={"max_length": 105})
    events = run(shortened, data, tmp_path / "run", base_models_dir=bases)
    left_out = metrics_of(events)["data"]["skipped_by_reason"]["over_long"]
    assert 0 < left_out < 42
    assert any("Conversations were left out" in notice["message"] for notice in metrics_of(events)["notices"])
    with pytest.raises(TextsTooLongError, match=r"data\.truncation is refuse") as refused:
        run(config(data={"max_length": 105, "truncation": "refuse"}), data, tmp_path / "refused", base_models_dir=bases)
    assert refused.value.field == "data.max_length"


@pytest.mark.parametrize(
    ("template", "tokens", "words"),
    [
        (NO_END, {}, "would never stop"),
        ("{{ messages[0].content.nothing.at_all() }}", {}, "refuses all conversations: .*no attribute 'nothing'"),
        ("{% for message in messages %}", {}, "refuses all conversations: "),
        (CHATML, {"eos_token": None}, "no end-of-text token"),
    ],
)
def test_base_model_that_can_not_be_taught_is_refused_before_the_first_step(template, tokens, words, data, tmp_path):
    build_language_model(tmp_path / "llama", tokenizer=chat_tokenizer(template, **tokens))
    events: list[Any] = []
    with pytest.raises(ChatTemplateError, match=words) as refused:
        events += train(config(), data_file=data, results=tmp_path / "run", base_models_dir=tmp_path)
    assert refused.value.field == "model.name" and not any(isinstance(event, StepDone) for event in events)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_all_settings_without_meaning_are_refused_at_once():
    with pytest.raises(ConfigError) as refused:
        config(
            model={"num_labels": 3},
            data={"text_pair_column": "b"},
            training={
                "loss": "focal",
                "class_weights": "balanced",
                "label_smoothing_factor": 0.1,
                "metric_for_best_model": "accuracy",
            },
        )
    assert {problem.field for problem in refused.value.problems} == {
        "model.num_labels",
        "data.text_pair_column",
        "training.loss",
        "training.class_weights",
        "training.label_smoothing_factor",
        "training.metric_for_best_model",
    }


def test_chat_template_is_refused_where_nobody_speaks():
    with pytest.raises(ConfigError) as refused:
        RunConfig.parse({"model": {"chat_template": "chatml"}})
    assert [problem.field for problem in refused.value.problems] == ["model.chat_template"]
    with pytest.raises(ConfigError, match=r"model\.chat_template"):
        RunConfig.parse({"task": "causal_lm", "model": {"chat_template": "vicuna"}})


def test_defaults_of_language_models_are_their_own():
    settings = RunConfig.parse({"task": "causal_lm"})
    assert settings.lora.target_modules == "all-linear" and settings.training.metric_for_best_model == "loss"
    assert (settings.data.text_column, settings.data.max_length) == ("messages", 1024)


def test_other_types_are_refused_and_the_covered_ones_named():
    with pytest.raises(BaseModelUnavailableError, match=r"its type is bert, and those that are covered are .*llama"):
        check_type({"model_type": "bert"}, "mine", "causal")


def test_scores_of_answers():
    answers = Answers(["a", "b", "c"], ['{"x": 1}', "[]", "{}"], ['{"x": 1}\n', "[1]", "{"])
    shares = {"exact_match": pytest.approx(1 / 3), "json_valid": pytest.approx(2 / 3)}
    assert answers.scores() == shares | {"field_accuracy": 1.0, "rouge_l": pytest.approx(1 / 3)}
    written = Answers(["a"] * 3, ['{"x": 1, "y": 2}', '{"x": 1}', "{}"], ['{"y": 2, "x": 3}', '{"x": ', "{}"])
    assert written.scores()["field_accuracy"] == pytest.approx(1 / 3)  # one of three fields
    assert "field_accuracy" not in Answers(["a"], ["[1]"], ["[1]"]).scores()
    assert Answers(["a"], ["free text"], ["free text"]).scores() == {"exact_match": 1.0, "rouge_l": 1.0}
    assert Answers([], [], []).scores() == {}
