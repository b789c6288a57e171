"""Serving: predictions equal those of plain PEFT, whoever else predicts at the same time, and harmful models are refused."""

import json
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.serve.batch import BatchRow
from engine.serve.errors import ModelTooLargeError, ModelUnreadableError
from engine.serve.model_files import WEIGHTS, file_state
from engine.serve.predictor import LoadedModel, Predictor
from engine.serve.shared_base import SharedBaseModel
from samples import base_model_path
from testing.adapters import MAX_LENGTH, make_adapter, predict_with_plain_peft
from testing.predictions import predict_labels

TEXTS = [
    "What a lovely day!",
    "no",
    "I have been waiting for two hours and nobody came to help me. " * 3,
    "It is. 好 ✓",
]
SHARED: dict[str, dict[str, Any]] = {
    "query-value": {},
    "all-linear": {"target_modules": "all-linear", "r": 3, "lora_alpha": 12},
    "rslora": {"use_rslora": True, "r": 8},
    "two-layers": {
        "layers_to_transform": [1, 4],
        "target_modules": ["key", "dense"],
        "exclude_modules": ["classifier"],
    },
    "pooler-saved": {"modules_to_save": ["classifier", "pooler"]},
}
NOT_SHARED: dict[str, dict[str, Any]] = {  # adapters that would change a shared base model
    "dora": {"use_dora": True},
    "biases": {"bias": "all"},
    "ranks": {"rank_pattern": {"query": 2}},
    "olora": {"init_lora_weights": "olora"},
}


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    folders = {}
    for seed, (name, lora) in enumerate((SHARED | NOT_SHARED).items()):
        labels = ["bad", "good"] if seed % 2 else ["negative", "neutral", "positive"]
        folders[name] = make_adapter(root / name, labels, seed, **lora)
    return folders


def probabilities(predictor: Predictor, folder: Path, texts: list[str]) -> list[list[float]]:
    return [list(prediction.probabilities) for prediction in predict_labels(predictor, folder, texts)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SHARED, *NOT_SHARED])
def test_predictions_equal_those_of_plain_peft(adapters, name):
    predictor = Predictor()
    actual = probabilities(predictor, adapters[name], TEXTS)
    expected = predict_with_plain_peft(adapters[name], TEXTS)
    for row, expected_row in zip(actual, expected, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-5)
    assert predictor.predict(adapters[name], TEXTS).predictions[2].truncated


@pytest.mark.slow
def test_adapters_share_one_base_model_unless_they_would_change_it(adapters):
    predictor = Predictor()
    for folder in adapters.values():
        predictor.predict(folder, ["a"])
    computing = {id(loaded.model) for loaded in predictor.cache.values() if isinstance(loaded, LoadedModel)}
    assert len(computing) == 1 + len(NOT_SHARED)
    assert sum(isinstance(value, SharedBaseModel) for value in predictor.cache.values()) == 1


@pytest.mark.medium
def test_tenants_in_one_batch_get_the_answers_that_they_get_alone(adapters):
    """S16: texts of five adapters, of two and three labels, in one forward pass, in any order."""
    predictor = Predictor()
    alone = {name: probabilities(predictor, adapters[name], TEXTS) for name in SHARED}
    models: dict[str, Any] = {}
    for name in SHARED:
        entry = predictor.cache.acquire_if_loaded((adapters[name], file_state(adapters[name] / WEIGHTS)))
        assert entry is not None
        models[name] = entry.value
    ids = {name: [text.ids for text in model.tokenizer.encode(TEXTS, MAX_LENGTH)] for name, model in models.items()}
    mixed = [(name, i) for i in range(len(TEXTS)) for name in SHARED]
    rows = [BatchRow(ids[name][i], models[name].adapter) for name, i in mixed]
    outputs = models["rslora"].model.outputs(rows)
    for (name, i), output in zip(mixed, outputs, strict=True):
        assert output.logits.softmax(-1).tolist() == pytest.approx(alone[name][i], abs=1e-5)


@pytest.mark.slow
def test_forty_callers_at_once_get_their_own_answers(adapters):
    predictor = Predictor()
    names = list(SHARED)
    expected = {name: predict_with_plain_peft(adapters[name], TEXTS) for name in names}

    def call(number: int) -> None:
        name, text = names[number % len(names)], number % len(TEXTS)
        (answer,) = probabilities(predictor, adapters[name], [TEXTS[text]])
        assert answer == pytest.approx(expected[name][text], abs=1e-5)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(call, range(40)))
    assert predictor.queue.waiting_tokens == 0


@pytest.mark.slow
def test_models_never_take_more_memory_than_the_limit(adapters):
    """The sample base model takes 87 MiB; DoRA's copies are as large. 200 MiB hold two of them."""
    predictor = Predictor(memory_mb=200)
    for name in ("dora", "biases", "query-value", "ranks", "all-linear", "dora"):
        predictor.predict(adapters[name], ["a"])
        assert predictor.cache.used <= predictor.cache.limit
    assert predictor.state()["models"] >= 2


def test_model_larger_than_the_limit_is_refused_before_it_is_loaded(adapters):
    with pytest.raises(ModelTooLargeError, match="SERVE_MEMORY_MB"):
        Predictor(memory_mb=80).predict(adapters["query-value"], ["a"])


def copy_with_change(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """Copy a final model, with its tensors changed in place."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, target / "adapter_model.safetensors")
    return target


def first_pair(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in tensors if name.endswith("lora_A.weight"))


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first_pair(tensors)].fill_(float("nan"))


def change_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first_pair(tensors)] = torch.zeros(4, 7)


def drop_half_of_a_pair(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[first_pair(tensors).replace("lora_A", "lora_B")]


def change_labels(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if ".classifier." in name:
            tensors[name] = torch.zeros(9, *tensor.shape[1:])


def add_a_layer(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first_pair(tensors).replace("layer.0", "layer.99")] = torch.zeros(4, 384)


def add_many_tensors(tensors: dict[str, torch.Tensor]) -> None:
    for i in range(100_000):
        tensors[f"x{i}.lora_A.weight"] = torch.zeros(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (poison, "not finite"),
        (change_shape, "does not fit"),
        (drop_half_of_a_pair, "does not fit"),
        (change_labels, "9 labels"),
        (add_a_layer, "does not fit"),
        (add_many_tensors, "100,0|not a safetensors file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_harmful_adapter_is_refused_with_the_reason(adapters, tmp_path, change, reason):
    folder = copy_with_change(adapters["query-value"], tmp_path / "harmful", change)
    with pytest.raises(ModelUnreadableError, match=reason):
        Predictor().predict(folder, ["a"])


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0{}"])
def test_file_that_is_not_safetensors_is_refused_and_never_unpickled(adapters, tmp_path, content):
    folder = copy_with_change(adapters["query-value"], tmp_path / "broken", lambda tensors: None)
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnreadableError):
        Predictor().predict(folder, ["a"])


def test_base_model_given_as_a_path_is_refused(adapters, tmp_path):
    folder = copy_with_change(adapters["query-value"], tmp_path / "escape", lambda tensors: None)
    info = json.loads((folder / "lorasite.json").read_text())
    for name in ("../../etc", "/etc", "no/such-model"):
        (folder / "lorasite.json").write_text(json.dumps(info | {"base_model": name}))
        with pytest.raises(ModelUnreadableError):
            Predictor(tmp_path).predict(folder, ["a"])


UNSAFE_CONFIGS: dict[str, dict[str, Any]] = {
    "auto-map": {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}},
    "nested": {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}, "trust_remote_code": True}},
    "unknown-type": {"model_type": "no-such-architecture"},
}


@pytest.mark.parametrize("name", UNSAFE_CONFIGS)
def test_adapter_over_a_base_model_with_code_is_refused_and_none_of_it_runs(adapters, tmp_path, monkeypatch, name):
    """S5, where serving loads it: none of its files runs, and no connection is made."""
    ran = tmp_path / "it-ran"
    connected: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *address: connected.append(address))
    base = shutil.copytree(base_model_path(), tmp_path / "bases" / "own")
    (base / "config.json").write_text(json.dumps(json.loads((base / "config.json").read_text()) | UNSAFE_CONFIGS[name]))
    (base / "evil.py").write_text(f"open({str(ran)!r}, 'w')")
    folder = copy_with_change(adapters["query-value"], tmp_path / "over-it", lambda tensors: None)
    info = json.loads((folder / "lorasite.json").read_text())
    (folder / "lorasite.json").write_text(json.dumps(info | {"base_model": "own"}))
    with pytest.raises(ModelUnreadableError):
        Predictor(tmp_path / "bases").predict(folder, ["a"])
    assert not ran.exists() and not connected


@pytest.mark.parametrize("weights", ["adapter_model.bin", "adapter_model.pt"])
def test_pickled_adapter_is_refused_and_never_opened(adapters, tmp_path, weights):
    folder = copy_with_change(adapters["query-value"], tmp_path / "pickled", lambda tensors: None)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / weights)
    with pytest.raises(ModelUnreadableError, match=r"adapter_model\.safetensors is not there"):
        Predictor().predict(folder, ["a"])
