"""Answers during training: our decoder writes what transformers writes with the same weights in fp32, and copies no weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import RunConfig
from engine.devices import DevicePlan
from engine.kernels.int8 import can_compile
from engine.models.causal import CausalForward
from engine.models.loading import add_adapter, load_language_model
from engine.models.untrained import UntrainedModel
from engine.serve.batch import DecoderRow
from engine.serve.decoder import SharedDecoder
from engine.storage import write_folder
from engine.tasks import answer_writers, causal_lm
from engine.tasks.answer_writers import DecoderWriter, TransformersWriter, sharing_skeleton
from engine.tasks.answers import Answers, answers_path
from engine.tasks.language_model import NO_HEAD
from engine.training.checkpoint import save_adapter
from samples import orders
from testing.language_models import FAMILIES, build_language_model, chat_tokenizer, write_conversations

PLAN = DevicePlan(torch.device("cpu"), torch.float32, "sdpa", False, 1)
TOKENIZER = chat_tokenizer()
PROMPTS: list[list[int]] = TOKENIZER(
    [
        "How many apples do you want?",
        "two",
        "A box of tea for Mei, and nothing else at all, please",
        "x y z",
        "and now?",
    ]
)["input_ids"]
END = TOKENIZER.get_vocab()["<|im_end|>"]
LIMIT = 12


def config(**sections: Any) -> RunConfig:
    lora = {"r": 4, "lora_dropout": 0.0} | sections.pop("lora", {})
    training = {"precision": "fp32", "device": "cpu", "max_steps": 1} | sections.pop("training", {})
    return RunConfig.parse(
        {"task": "causal_lm", "model": {"name": "llama"}, "lora": lora, "training": training} | sections
    )


def trained_model(folder: Path, plan: DevicePlan = PLAN, **lora: Any) -> tuple[Any, Any]:
    """Return the skeleton of a base model, and the model with an adapter that changes something."""
    settings = config(lora=lora)
    base = load_language_model(folder, "mine", plan)
    skeleton = sharing_skeleton(base, settings, plan)
    model = add_adapter(base, settings.lora, NO_HEAD, "mine", 0, "causal")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return skeleton, model.eval()


@pytest.fixture
def task(language_bases: Path, tmp_path: Path) -> causal_lm.Task:
    splits = ["train"] * 4 + ["eval"] * 20 + ["test"]
    data = write_conversations(tmp_path / "orders.jsonl", orders()["messages"].to_list()[:25], splits)
    return causal_lm.Task(config(data={"max_length": 256}), PLAN, language_bases / "tiny", data, tmp_path / "cache", 1)


@pytest.mark.medium
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_decoder_writes_the_answers_of_transformers_with_adapter_and_without(family, tmp_path, monkeypatch):
    monkeypatch.setattr(answer_writers, "PLACES", 3)
    monkeypatch.setattr(answer_writers, "PROMPT_TOKENS", 20)
    skeleton, model = trained_model(build_language_model(tmp_path / family, family))
    expected = TransformersWriter(model.get_base_model(), END)
    writer = DecoderWriter(skeleton, model, TOKENIZER, END)
    tuned = writer(PROMPTS, LIMIT)
    assert tuned == [without_padding(answer) for answer in expected(PROMPTS, LIMIT)]
    with model.disable_adapter():
        base = writer(PROMPTS, LIMIT)
        assert base == [without_padding(answer) for answer in expected(PROMPTS, LIMIT)] != tuned


def without_padding(answer: list[int]) -> list[int]:
    """Return an answer up to its end: transformers fills up those that are shorter than others."""
    return answer[: answer.index(END) + 1] if END in answer else answer


@pytest.mark.medium
def test_answers_wait_for_room_where_the_cache_is_small(language_bases, monkeypatch):
    skeleton, model = trained_model(language_bases / "tiny")
    writer = DecoderWriter(skeleton, model, TOKENIZER, END)
    expected = writer(PROMPTS, LIMIT)
    monkeypatch.setattr(answer_writers, "CACHE_BYTES", 1)
    assert writer(PROMPTS, LIMIT) == expected


@pytest.mark.medium
@pytest.mark.skipif(not can_compile(), reason="without compiled kernels, transformers writes in bf16")
def test_bf16_weights_are_shared_and_answers_are_those_of_fp32(tmp_path, monkeypatch):
    base = build_language_model(tmp_path / "qwen2", "qwen2")
    skeleton, model = trained_model(base, replace(PLAN, dtype=torch.bfloat16))
    CausalForward(model, int8=False)  # as in training, where the model has other attention
    decoders: list[SharedDecoder] = []
    step = SharedDecoder.step

    def watch(self: SharedDecoder, rows: list[DecoderRow]) -> list[torch.Tensor]:
        decoders.append(self)
        return step(self, rows)

    monkeypatch.setattr(SharedDecoder, "step", watch)
    answers = DecoderWriter(skeleton, model, TOKENIZER, END)(PROMPTS, LIMIT)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    assert {layer.weight.data_ptr() for layer in decoders[0].projections} <= weights

    _, exact = trained_model(base)
    exact.load_state_dict(model.state_dict())
    expected = TransformersWriter(exact.get_base_model(), END)(PROMPTS, LIMIT)
    assert answers == [without_padding(answer) for answer in expected]


@pytest.mark.medium
def test_base_model_of_an_adapter_that_was_subtracted_from_it_is_asked_as_it_was(language_bases):
    skeleton, model = trained_model(language_bases / "tiny")
    with model.disable_adapter():
        expected = DecoderWriter(skeleton, model, TOKENIZER, END)(PROMPTS, LIMIT)
    settings = config(lora={"init_lora_weights": "pissa"})
    base = load_language_model(language_bases / "tiny", "mine", PLAN)
    skeleton = sharing_skeleton(base, settings, PLAN)
    model = add_adapter(base, settings.lora, NO_HEAD, "mine", 0, "causal").eval()
    untrained = UntrainedModel(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    writer = DecoderWriter(skeleton, model, TOKENIZER, END)
    assert writer(PROMPTS, LIMIT) != expected
    with untrained.restored():
        assert writer(PROMPTS, LIMIT) == expected


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"bias": "lora_only"}, {"modules_to_save": ["embed_tokens"]}])
def test_adapters_that_are_more_than_low_rank_updates_are_left_to_transformers(lora, language_bases):
    skeleton, _model = trained_model(language_bases / "tiny", **lora)
    assert skeleton is None


@pytest.mark.medium
def test_evaluations_before_the_last_ask_less(task):
    task.evaluate(is_last=False)
    assert task.answers is not None and len(task.answers.written) == 16
    task.evaluate()
    assert len(task.answers.written) == 20
    task.config.training.metric_for_best_model = "exact_match"  # then all scores have to be of the same prompts
    task.evaluate(is_last=False)
    assert len(task.answers.written) == 20


@pytest.mark.medium
def test_base_model_is_asked_once_for_all_attempts_on_the_same_data(task, monkeypatch):
    task.evaluate()
    first = task.summary()
    asked: list[int] = []
    write = DecoderWriter.__call__

    def count(self: DecoderWriter, prompts: list[list[int]], limit: int) -> list[list[int]]:
        asked.append(len(prompts))
        return write(self, prompts, limit)

    monkeypatch.setattr(DecoderWriter, "__call__", count)
    assert task.summary() == first and asked == [1]  # the test row


def test_damaged_file_of_answers_is_written_anew(tmp_path):
    answers = Answers(["a"], ["b"], ["c"])
    path = answers_path(tmp_path, "key")
    Answers.load_or_write(path, lambda: answers)
    (file,) = tmp_path.glob("answers-*")
    for content in ("", "[]", '{"prompts": []}'):
        file.write_text(content)
        assert Answers.load_or_write(path, lambda: answers) == answers
    assert Answers.load_or_write(path, lambda: pytest.fail("it is there")) == answers
    assert Answers.load_or_write(None, lambda: answers) == answers


@pytest.mark.medium
def test_trained_weights_are_not_kept_by_the_writer_when_the_saved_model_is_checked(task, tmp_path):
    assert task.decoder_writer is not None

    def fill(draft: Path) -> None:
        save_adapter(task.model, draft)
        task.save_extras(draft)

    write_folder(tmp_path / "final", fill)
    task.verify(tmp_path / "final")
    assert task.decoder_writer is None
