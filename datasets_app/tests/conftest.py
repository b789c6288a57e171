from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes | str], Path]:
    """file(content) is a file with that content (text as UTF-8)."""

    def make(content: bytes | str, name: str = "given") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


@pytest.fixture
def good_csv() -> bytes:
    """400 rows, two labels, no two texts alike."""
    lines = [
        f"the train number {i} to town {i * 7} was {('lovely', 'awful')[i % 2]},{('good', 'bad')[i % 2]}"
        for i in range(400)
    ]
    return "\n".join(["comment,mood", *lines]).encode()


@pytest.fixture
def stored(member: Any, file: Callable[..., Path], good_csv: bytes) -> Any:
    """Version 1 of the member's dataset `moods`."""
    from testing.datasets import store_dataset

    return store_dataset(member, "moods", file(good_csv, "moods.csv"))
