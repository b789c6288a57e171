"""Faults at every place where a run touches a file: it resumes to the same bytes, without manual cleanup."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import RunConfig
from engine.tests.conftest import small
from testing.small_models import BERT_SPECIAL, save_model, train_wordpiece

pytestmark = [pytest.mark.process, pytest.mark.skipif(not hasattr(os, "fork"), reason="each run is a fork")]


@pytest.fixture(scope="module")
def rows(tweets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few rows as a run takes: hundreds of runs read them."""
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pl.read_parquet(tweets).head(60).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def bases(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model whose tokenizer has few tokens, so that it is read in no time."""
    from transformers import BertConfig

    folder = tmp_path_factory.mktemp("bases")
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    tokenizer = train_wordpiece(pl.read_parquet(rows)["text"].to_list())
    save_model(folder / "tiny", config, tokenizer, BERT_SPECIAL, "BertTokenizer")
    return folder


def tiny() -> RunConfig:
    training = {"num_train_epochs": 1, "max_steps": 2, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "no"}
    return small(model={"name": "tiny"}, lora={"layers_to_transform": None}, training=training)


def hit(kind: str, folder: Path, data: Path, bases: Path, *, every: int = 1) -> list[dict[str, Any]]:
    """Return how the run ended for a fault at each place (or every second, …) where it touches a file."""
    arguments = [kind, str(folder), str(data), json.dumps(tiny().model_dump(mode="json")), str(bases), str(every)]
    command = [sys.executable, "-W", "ignore", "-m", "engine.tests.faults", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_run_killed_at_any_file_boundary_goes_on_by_itself_to_the_same_bytes(rows, bases, tmp_path):
    hits = hit("kill", tmp_path, rows, bases)
    assert len([one for one in hits if "checkpoint-" in one["place"]]) > 16
    assert {one["broken"] for one in hits} == {"SIGKILL"}
    assert [(one["place"], one["again"].get("message")) for one in hits if not one["same"]] == []
    assert [one["drafts"] for one in hits if one["drafts"]] == []


def test_disk_full_at_any_write_is_told_in_words_and_the_run_goes_on_once_there_is_room(rows, bases, tmp_path):
    hits = hit("full", tmp_path, rows, bases, every=2)
    assert len([one for one in hits if "checkpoint-" in one["place"]]) > 8
    refused = [one for one in hits if one["broken"]["code"]]
    assert {one["broken"]["code"] for one in refused} == {"disk_full"}
    assert all("disk is full" in one["broken"]["message"] for one in refused)
    assert any("checkpoint-2" in one["place"] for one in refused)
    assert [(one["place"], one["again"].get("message")) for one in hits if not one["same"]] == []


def test_disk_that_refuses_every_write_from_some_moment_on_leaves_what_was_saved(rows, bases, tmp_path):
    hits = hit("refuse", tmp_path, rows, bases, every=3)
    refused = [one for one in hits if one["broken"]["code"]]
    assert len(refused) > 0.9 * len(hits)
    assert {one["broken"]["code"] for one in refused} == {"disk_full"}
    assert any(
        "adapter_model" in one["broken"]["message"] or "checkpoint-2" in one["broken"]["message"] for one in refused
    )
    assert [(one["place"], one["again"].get("message")) for one in hits if not one["same"]] == []
