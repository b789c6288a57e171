"""Which packages a format needs beside those of requirements.txt, and whether they are here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.export import Format

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INSTALL = "pip install -r requirements-export.txt"


def missing_packages(format: Format) -> list[str]:
    """Return the packages that writing this format needs and that are not installed."""
    needed = ONNX_PACKAGES if format.startswith("onnx") else ()
    return [name for name in needed if find_spec(name) is None]
