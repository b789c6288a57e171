"""Kernels that numba compiles."""

from typing import Any
from uuid import uuid4

import pytest
import torch

from engine.kernels.int8 import can_compile

if not can_compile():
    pytest.skip("the kernels cannot be compiled here", allow_module_level=True)

from engine.kernels import compiled
from engine.kernels.compiled import ONE, Arguments, Kernel, float_vector, rows_of_this_thread


def fill(arguments: Arguments) -> None:
    numbers = float_vector(arguments[0], arguments[1])
    for index in rows_of_this_thread(arguments[1]):
        numbers[index] = ONE


def test_compiled_kernels_are_kept_until_a_file_that_they_are_made_of_changes(monkeypatch: Any) -> None:
    numbers = torch.zeros(5)
    Kernel(fill)(numbers, 5)
    assert numbers.tolist() == [1] * 5
    assert Kernel(fill)._compiled.cache_hits == 1
    monkeypatch.setattr(compiled, "SOURCES", uuid4().hex)  # of a release that nobody has compiled
    assert Kernel(fill)._compiled.cache_hits == 0
