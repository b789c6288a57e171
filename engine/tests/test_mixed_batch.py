"""Texts of many adapters in one batch: stacked on a GPU, sliced on a CPU, with the same answers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.models.architectures import find_architecture
from engine.serve import mixed_batch
from engine.serve.adapter_loading import load_adapter
from engine.serve.batch import BatchRow, RowOutput
from engine.serve.shared_base import SharedBaseModel
from samples import base_model_path
from testing.adapters import make_adapter

ALL_LINEAR = {"target_modules": "all-linear"}
SETTINGS: list[tuple[int, dict[str, Any]]] = [  # labels, and arguments of PEFT
    (3, {}),
    (3, {"modules_to_save": ["classifier", "pooler"]}),
    (3, ALL_LINEAR),
    (3, ALL_LINEAR),
    (3, ALL_LINEAR),
    (2, ALL_LINEAR),
    (2, ALL_LINEAR | {"r": 3, "use_rslora": True}),
    (3, {"layers_to_transform": [1, 4], "target_modules": ["key", "dense"]}),
]
LENGTHS = (5, 9, 3, 9)


@pytest.fixture(scope="module")
def base() -> SharedBaseModel:
    from transformers import AutoConfig

    architecture = find_architecture(AutoConfig.from_pretrained(base_model_path()).to_dict())
    assert architecture is not None
    return SharedBaseModel(base_model_path(), architecture, torch.device("cpu"))


@pytest.fixture(scope="module")
def rows(base: SharedBaseModel, tmp_path_factory: pytest.TempPathFactory) -> list[BatchRow]:
    """Four texts of each adapter, in turns."""
    root: Path = tmp_path_factory.mktemp("mixed")
    adapters = []
    for seed, (label_count, lora) in enumerate(SETTINGS):
        folder = make_adapter(root / str(seed), ["a", "b", "c"][:label_count], seed, **lora)
        adapters.append(load_adapter(folder, base, label_count))
    chance = torch.Generator().manual_seed(0)
    return [
        BatchRow(torch.randint(1000, 2000, (length,), generator=chance).tolist(), adapter)
        for length in LENGTHS
        for adapter in adapters
    ]


@pytest.fixture(scope="module")
def alone(base: SharedBaseModel, rows: list[BatchRow]) -> list[RowOutput]:
    """What each row gives in a batch of its own."""
    return [base.outputs([row])[0] for row in rows]


def require_equal(actual: list[RowOutput], expected: list[RowOutput]) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.logits, other.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.features, other.features, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("most_slices", [0, 1, 2])
@pytest.mark.parametrize("most_stacked", [128, 3])
def test_stacked_adapters_answer_as_each_one_does_alone(base, rows, alone, monkeypatch, most_slices, most_stacked):
    require_equal(base.outputs(rows), alone)
    monkeypatch.setattr(base, "most_slices", most_slices)
    monkeypatch.setattr(mixed_batch, "MOST_STACKED", most_stacked)
    require_equal(base.outputs(rows), alone)
    require_equal(base.outputs(rows[: len(SETTINGS)]), alone[: len(SETTINGS)])  # texts of one length


class Operations(TorchDispatchMode):
    """Lists the operations that torch executes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operations(base: SharedBaseModel, rows: list[BatchRow]) -> list[str]:
    with Operations() as mode:
        base.outputs(rows)
    return sorted(mode.names)


@pytest.mark.medium
def test_stack_takes_as_many_operations_for_many_adapters_as_for_two(base, rows, monkeypatch):
    """Each operation on a GPU takes the CPU about 35 µs to start."""
    monkeypatch.setattr(base, "most_slices", 0)
    two_adapters = rows[2:4] + rows[2 + len(SETTINGS) : 4 + len(SETTINGS)]
    three_adapters = rows[2:5] + rows[2 + len(SETTINGS) : 5 + len(SETTINGS)]
    assert operations(base, three_adapters) == operations(base, two_adapters)


@pytest.mark.medium
def test_batch_waits_for_a_gpu_only_for_its_outputs(base, rows, monkeypatch):
    monkeypatch.setattr(base, "most_slices", 0)
    waits = ("nonzero", "_local_scalar_dense", "masked_select", "aten.index.Tensor")  # of numbers or of booleans
    names = [name for name in operations(base, rows) if any(wait in name for wait in waits)]
    rectangles = 1 + len({row.adapter.layout for row in rows if row.adapter})
    assert names == ["aten.nonzero.default"] * rectangles  # Rectangle's own, on the CPU
