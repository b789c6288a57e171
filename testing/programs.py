"""Run the programs that people are shown, as they stand."""

from collections.abc import Callable
from typing import Any


def run_program(program: str) -> Callable[..., Any]:
    """Run a program of engine.export.programs in the current folder, without what it prints; return its `predict`."""
    values: dict[str, Any] = {"print": lambda *values: None}
    exec(compile(program, "program", "exec"), values)
    predict: Callable[..., Any] = values["predict"]
    return predict
