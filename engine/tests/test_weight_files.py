"""A folder that is no whole base model is refused by what is wrong with it, before any weight is read."""

import json
import shutil
from pathlib import Path

import pytest

from engine.errors import BaseModelUnavailableError, BaseModelUnsafeError
from engine.models.base_models import check_safe
from engine.models.text_encoding import load_tokenizer
from engine.models.weight_files import check_folder
from samples import base_model_path

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440449768\n"


@pytest.fixture
def base(bases: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bases / "tiny", tmp_path / "base"))


def refusal(folder: Path) -> str:
    """Return the sentence of the check that needs no transformers."""
    with pytest.raises((BaseModelUnavailableError, BaseModelUnsafeError)) as caught:
        check_folder(folder, "mine")
    assert caught.value.field == "model.name" and str(folder.parent) not in str(caught.value)
    return str(caught.value)


def in_parts(base: Path) -> list[Path]:
    """Replace the weights by two equal parts and an index."""
    parts = [base / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for part in parts:
        shutil.copy(base / "model.safetensors", part)
    (base / "model.safetensors").unlink()
    index = {"weight_map": {f"weight.{number}": part.name for number, part in enumerate(parts)}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    return parts


def test_whole_folders_pass(base: Path) -> None:
    check_folder(base_model_path(), "sample")
    check_folder(base, "mine")
    in_parts(base)
    check_folder(base, "mine")


def test_git_lfs_pointer_is_named_with_its_size(base: Path) -> None:
    (base / "model.safetensors").write_text(POINTER)
    assert f"model.safetensors is a git-LFS pointer ({len(POINTER)} bytes)" in refusal(base)


def test_cut_off_empty_and_foreign_weights_are_told_apart(base: Path) -> None:
    whole = (base / "model.safetensors").read_bytes()
    for content, fault in (
        (whole[:-5000], f"is cut off ({len(whole) - 5000:,} of {len(whole):,} bytes)"),
        (whole[:100], "is cut off (100 bytes)"),
        (b"", "is empty (0 bytes)"),
        (b"<!doctype html><title>404</title>", "is not a safetensors file (33 bytes)"),
        (whole + b"more", "is damaged"),
    ):
        (base / "model.safetensors").write_bytes(content)
        assert f"model.safetensors {fault}" in refusal(base)


def test_missing_part_is_named(base: Path) -> None:
    in_parts(base)[1].unlink()
    assert "lacks 1 of its 2 parts: model-00002-of-00002.safetensors" in refusal(base)


def test_parts_without_an_index_and_an_index_that_leads_out_are_refused(base: Path) -> None:
    in_parts(base)
    index = base / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": "../other/model.safetensors"}}))
    assert "does not list the files of this folder" in refusal(base)
    index.write_text("{")
    assert "no readable model.safetensors.index.json" in refusal(base)
    index.unlink()
    assert "lacks model.safetensors.index.json" in refusal(base)


def test_adapter_alone_is_no_base_model(base: Path) -> None:
    (base / "model.safetensors").rename(base / "adapter_model.safetensors")
    assert "is an adapter only" in refusal(base)


def test_same_checks_hold_where_a_run_resolves_its_base_model(base: Path) -> None:
    (base / "model.safetensors").write_text(POINTER)
    with pytest.raises(BaseModelUnavailableError, match="git-LFS pointer"):
        check_safe(base, "mine")


@pytest.mark.parametrize("left", [None, "tokenizer_config.json"])
def test_folder_without_vocabulary_is_refused_though_transformers_would_make_a_tokenizer(base, left) -> None:
    for path in base.glob("tokenizer*"):
        if path.name != left:
            path.unlink()
    assert "has no tokenizer" in refusal(base)
    with pytest.raises(BaseModelUnavailableError, match="has no tokenizer"):
        load_tokenizer(base, "mine")


def test_vocabulary_that_is_a_git_lfs_pointer_is_named(base: Path) -> None:
    (base / "tokenizer.json").write_text(POINTER)
    assert "tokenizer.json is a git-LFS pointer" in refusal(base)


def test_tokenizers_of_bytes_and_characters_need_no_vocabulary(base: Path) -> None:
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    check_folder(base, "mine")
