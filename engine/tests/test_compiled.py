"""Kernels that numba compiles."""

from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest
import torch
from numba.core.dispatcher import Dispatcher

from engine.kernels.int8 import can_compile

if not can_compile():
    pytest.skip("the kernels cannot be compiled here", allow_module_level=True)

from engine.kernels import compiled
from engine.kernels.compiled import ONE, Kernel, float_vector, rows_of_this_thread, unpack
from engine.kernels.panels import has_bf16_products

KERNEL_MODULES = ["compiled", "cpu", "decoding"]
if has_bf16_products():
    KERNEL_MODULES += ["tiles", "low_rank", "causal_attention"]


def fill(arguments: int) -> None:
    numbers_at, count = unpack(arguments, 2)
    numbers = float_vector(numbers_at, count)
    for index in rows_of_this_thread(count):
        numbers[index] = ONE


def test_compiled_kernels_are_kept_until_a_file_that_they_are_made_of_changes(monkeypatch: Any) -> None:
    numbers = torch.zeros(5)
    Kernel(fill)(numbers, 5)
    assert numbers.tolist() == [1] * 5
    assert Kernel(fill)._compiled.cache_hits == 1
    monkeypatch.setattr(compiled, "SOURCES", uuid4().hex)  # of a release that nobody has compiled
    assert Kernel(fill)._compiled.cache_hits == 0


@pytest.mark.slow
def test_functions_that_kernels_call_are_inlined() -> None:
    """Otherwise code that was just compiled and code from the cache may differ in the last bits of their results."""
    functions = [value for name in KERNEL_MODULES for value in vars(import_module(f"engine.kernels.{name}")).values()]
    helpers = [function for function in functions if isinstance(function, Dispatcher)]
    assert helpers
    assert {
        function.py_func.__name__ for function in helpers if function.targetoptions.get("inline") != "always"
    } == set()
