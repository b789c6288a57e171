"""What a base model's config.json alone says about whether it can be trained: for every type that transformers has a head for."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from engine.errors import BaseModelUnavailableError
from engine.models.supported_types import REFUSED, TRAINABLE, check_type, find_reason
from engine.task_types import HeadKind
from engine.tests.conftest import run, small
from testing.tiny_architectures import build_tiny

HEADS: dict[HeadKind, set[str]] = {
    "sequence": set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    "token": set(MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES),
}


def complete_config(model_type: str) -> dict[str, object]:
    return {"model_type": model_type, "default_language": "en_XX"}


def test_every_type_that_transformers_has_a_head_for_is_either_trained_or_refused():
    for head, types in HEADS.items():
        assert types == TRAINABLE[head] | (set(REFUSED) & types)
        assert not TRAINABLE[head] & set(REFUSED)
    assert set(REFUSED) <= HEADS["sequence"] | HEADS["token"]


@pytest.mark.parametrize("head", ["sequence", "token"])
@pytest.mark.parametrize("model_type", sorted(HEADS["sequence"] | HEADS["token"]))
def test_type_is_accepted_or_refused_in_one_sentence_beside_the_model(model_type, head):
    if model_type in TRAINABLE[head]:
        check_type(complete_config(model_type), "mine", head)
        return
    with pytest.raises(BaseModelUnavailableError, match=rf"^The base model mine can't .*\b{model_type}\b") as refused:
        check_type(complete_config(model_type), "mine", head)
    assert refused.value.field == "model.name" and len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("config", "head", "reason"),
    [
        ({"model_type": "vit"}, "sequence", "transformers has no sequence classification for its type, vit"),
        ({"model_type": "bart"}, "token", "transformers has no token classification for its type, bart"),
        ({}, "token", "transformers has no token classification for its type, None"),
        ({"model_type": "xmod"}, "token", "no default_language"),
        ({"model_type": "falcon", "alibi": True}, "sequence", "alibi"),
        ({"model_type": "flaubert", "pre_norm": True}, "token", "pre_norm"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "token", r"quantized \(gptq\)"),
    ],
)
def test_reason_names_what_is_missing(config, head, reason):
    with pytest.raises(BaseModelUnavailableError, match=reason):
        check_type(config, "mine", head)


def test_excerpt_of_the_hub_need_not_name_a_language():
    assert find_reason({"model_type": "xmod"}, "sequence", is_complete=False) is None


@pytest.mark.process
def test_checking_a_type_imports_neither_torch_nor_transformers():
    code = "import sys, engine.models.supported_types; print(*{'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


@pytest.mark.medium
def test_run_of_a_refused_type_ends_before_its_rows_are_read(tmp_path: Path):
    build_tiny(tmp_path / "bases/funnel", "funnel")
    with pytest.raises(BaseModelUnavailableError, match="its type is funnel, and it mixes a text with its padding"):
        run(
            small(model={"name": "funnel"}),
            tmp_path / "no-such-file",
            tmp_path / "run",
            base_models_dir=tmp_path / "bases",
        )


def test_configuration_that_its_own_class_refuses_ends_in_a_sentence(tweets: Path, tmp_path: Path):
    build_tiny(tmp_path / "bases/mine", "llama")
    path = tmp_path / "bases/mine/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": "wide"}))
    with pytest.raises(BaseModelUnavailableError, match=r"The config.json of mine can't be read .*hidden_size"):
        run(small(model={"name": "mine"}), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")


def test_page_of_models_has_the_same_types():
    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    rows = page.partition("\n| learns | types |\n|---|---|\n")[2].partition("\n\n")[0].strip().splitlines()
    types = {
        learns: set(re.findall(r"`([\w-]+)`", names)) for learns, names in (row.strip("| ").split("|") for row in rows)
    }
    sequence, token = TRAINABLE["sequence"], TRAINABLE["token"]
    assert types["texts and entities "] == sequence & token
    assert types["texts "] == sequence - token
    reasons = {f"nothing: {reason} ": reason for reason in REFUSED.values()}
    for learns, reason in reasons.items():
        assert types[learns] == {name for name in REFUSED if REFUSED[name] == reason}
    assert set().union(*types.values()) == HEADS["sequence"] | HEADS["token"]
