"""Models that were made to harm: nothing of theirs runs, and the refusal says why."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.config_sections import SAMPLE_MODEL
from engine.errors import BaseModelUnsafeError
from engine.models.base_models import check_safe, resolve
from experiments.services import ModelMissingError, check_model

ADAPTER = "adapter_model.safetensors"


class Trap:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def pickled(folder: Path, trace: Path) -> None:
    (folder / ADAPTER).write_bytes(pickle.dumps(Trap(trace)))


def only_bin(folder: Path, trace: Path) -> None:
    (folder / ADAPTER).unlink()
    torch.save({"a": torch.zeros(1)}, folder / "adapter_model.bin")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(trace)))


def truncated(folder: Path, trace: Path) -> None:
    content = (folder / ADAPTER).read_bytes()
    (folder / ADAPTER).write_bytes(content[: len(content) // 2])


def header_of_a_terabyte(folder: Path, trace: Path) -> None:
    (folder / ADAPTER).write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


def wrong_shapes(folder: Path, trace: Path) -> None:
    tensors = load_file(folder / ADAPTER)
    save_file({name: torch.zeros(3, 3) for name in tensors}, folder / ADAPTER)


CRIMES = {c.__name__: c for c in (pickled, only_bin, truncated, header_of_a_terabyte, wrong_shapes)}


@pytest.mark.parametrize("crime", CRIMES)
def test_adapter_that_is_none_is_refused_and_nothing_of_it_runs(
    api: Any, member: Any, model: Any, tmp_path: Path, crime: str
) -> None:
    trace = tmp_path / "it-ran"
    CRIMES[crime](model.final_model, trace)
    answer = api(member).post("/api/predict", {"text": "a fine day", "model": "small"}, format="json")
    assert answer.status_code == 409 and "can't be loaded" in answer.json()["detail"] and not trace.exists()
    assert str(tmp_path) not in answer.content.decode()
    if crime != "wrong_shapes":  # the header alone does not show it
        with pytest.raises(ModelMissingError):
            check_model(model)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(resolve(SAMPLE_MODEL, None), tmp_path / "base"))


def change(base: Path, **config: Any) -> None:
    original = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(original | config))


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}, "trust_remote_code": True}},
        {"model_type": "no-such-architecture"},
        {"model_type": ["bert"]},
    ],
)
def test_base_model_that_brings_code_is_refused(base: Path, config: dict[str, Any]) -> None:
    change(base, **config)
    (base / "evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(BaseModelUnsafeError):
        check_safe(base, "base")


def test_base_model_of_pickles_is_refused(base: Path) -> None:
    for file in base.glob("*.safetensors"):
        file.rename(file.with_name("pytorch_model.bin"))
    with pytest.raises(BaseModelUnsafeError, match="safetensors"):
        check_safe(base, "base")


@pytest.mark.parametrize("section", [{"trust_remote_code": True}, {"name": "a/b", "use_safetensors": False}])
def test_no_configuration_turns_on_remote_code(api: Any, member: Any, section: dict[str, Any]) -> None:
    answer = api(member).post("/api/train/validate", {"model": section}, format="json")
    field = answer.json()["errors"][0]["field"]
    assert answer.status_code == 400 and field in ("model.trust_remote_code", "model.use_safetensors")


def test_no_code_of_ours_trusts_remote_code_or_unpickles() -> None:
    from django.conf import settings

    forbidden = ("trust_remote_code=True", "pickle.load", "torch.load(", "use_safetensors=False", "yaml.load(")
    rooms = ("accounts", "audit", "datasets_app", "experiments", "inference", "lorasite", "training", "samples")
    for room in rooms:
        for path in (Path(settings.BASE_DIR) / room).rglob("*.py"):
            if "tests" not in path.parts:
                assert not [word for word in forbidden if word in path.read_text(encoding="utf-8")], path
