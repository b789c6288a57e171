"""The check of what a language model forgets: a fixed sample, the loss of plain transformers, and a switch."""

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from engine.config import RunConfig
from engine.contradictions import unused_settings
from engine.data.general_texts import CHINESE, ENGLISH, TEXTS, VERSION
from engine.devices import DevicePlan
from engine.models.chat_template import ChatTemplate
from engine.models.loading import load_language_model
from engine.tasks import causal_lm
from engine.tasks.forgetting import general_tokens
from engine.tasks.repeats import NEVER
from samples import orders
from testing.language_models import build_language_model, chat_tokenizer, write_conversations

PLAN = DevicePlan(torch.device("cpu"), torch.float32, "sdpa", False, 1)


@pytest.fixture
def task(tmp_path: Path) -> causal_lm.Task:
    build_language_model(tmp_path / "llama")
    splits = ["train"] * 4 + ["eval"] * 2
    data = write_conversations(tmp_path / "orders.jsonl", orders()["messages"].to_list()[:6], splits)
    settings: dict[str, Any] = {"data": {"max_length": 256}, "training": {"precision": "fp32", "device": "cpu"}}
    config = RunConfig.parse({"task": "causal_lm", "model": {"name": "llama"}, "lora": {"r": 4}, **settings})
    return causal_lm.Task(config, PLAN, tmp_path / "llama", data, None, 1)


def test_texts_have_a_version_of_their_own():
    assert len(ENGLISH) > 10 < len(CHINESE) and len(set(TEXTS)) == len(TEXTS)
    # Whoever changes a text raises VERSION, and then this line.
    assert (VERSION, hashlib.sha256("\n".join(TEXTS).encode()).hexdigest()[:12]) == (1, "db63416f94c6")


@pytest.mark.medium
def test_loss_is_that_of_plain_transformers_before_and_after(task):
    for name, parameter in task.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    forgetting = task.summary()["forgetting"]
    assert forgetting["texts"] == VERSION and forgetting["loss"] > forgetting["base_loss"]
    model: Any = load_language_model(task.base, "mine", PLAN)
    tokens = general_tokens(task.template, 256)
    losses = []
    with torch.no_grad():
        for start, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
            ids = torch.from_numpy(tokens.ids[start:end]).long()[None]
            is_target = torch.from_numpy(tokens.is_target[start:end])[1:]
            losses.append(cross_entropy(model(ids).logits[0, :-1][is_target], ids[0, 1:][is_target], reduction="none"))
    assert forgetting["base_loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-4)
    assert math.isfinite(forgetting["loss"])


@pytest.mark.medium
def test_check_can_be_turned_off_and_means_nothing_to_classifiers(task):
    assert "forgetting" in task.summary()
    task.config.system.forgetting_check = False
    assert "forgetting" not in task.summary() and task.check_forgetting() == NEVER
    assert "system.forgetting_check" in unused_settings("regression")
    assert "system.forgetting_check" not in unused_settings("causal_lm") | unused_settings("preference")


def test_figures_of_the_base_model_are_computed_once_for_all_runs_on_the_same_data(task, tmp_path):
    task.cache_dir = tmp_path / "cache"
    files = {name: path for name, path in task.base_model_files().items() if path}
    assert files.keys() == {"scores", "answers", "general"} and not any(path.exists() for path in files.values())
    first = task.summary()
    assert all(path.is_file() for path in files.values())
    assert task.summary()["baseline"] == first["baseline"]
    kept = list(task.cache_dir.glob("base-figures-*.json"))
    assert len(kept) == 2
    for path in kept:
        path.write_text('{"loss": 7.0}')
    again = task.summary()
    assert again["forgetting"]["base_loss"] == again["baseline"]["base_loss"] == 7.0
    kept[0].write_text("{")
    kept[1].write_text("{")
    assert task.summary()["forgetting"] == first["forgetting"]


def test_figures_of_other_data_are_computed_anew(task, tmp_path):
    task.cache_dir = tmp_path / "cache"
    of_eval = task.base_scores()
    task.eval_tokens = task.train_tokens
    assert task.base_scores() != of_eval and len(list(task.cache_dir.glob("base-figures-*.json"))) == 2


def test_texts_that_are_longer_than_a_model_takes_are_cut_and_lose_no_token():
    template = ChatTemplate(chat_tokenizer(), "mine")
    whole, cut = general_tokens(template, 10_000), general_tokens(template, 5)
    assert cut.lengths.max() == 5 and cut.target_tokens == whole.target_tokens
