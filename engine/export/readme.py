"""What an export says of itself: in export.json for programs, and in README.md with a program that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.export.comparison import ExportCheck
from engine.export.programs import export_program
from engine.serve.model_files import WEIGHTS, ModelInfo
from engine.serve.predictor import LoadedModel
from engine.storage import file_hash


def describe_export(
    final_model: Path, info: ModelInfo, check: ExportCheck, packages: Sequence[str], limits: dict[str, float] | None
) -> dict[str, Any]:
    """Return the content of export.json: which model this is, in which format, and how its answers compare.

    packages: those whose versions matter. limits: how far answers may be off, None where nothing is refused.
    """
    return {
        "format": check.format,
        "task": info.task,
        "base_model": info.base_model,
        "base_model_revision": info.revision,
        "base_model_hash": info.base_model_hash,
        "adapter_hash": file_hash(final_model / WEIGHTS),
        "packages": {name: version(name) for name in packages},
        "check": asdict(check),
        "limits": limits,
    }


def write_readme(folder: Path, served: LoadedModel, check: ExportCheck) -> None:
    """Write README.md into an exported folder."""
    info = served.info
    text = (
        f"# {info.task.replace('_', ' ').capitalize()}, {check.format}\n\n"
        f"Exported from an adapter over `{info.base_model}`, which is merged into the weights. {check.sentence} "
        "export.json has these figures; lorasite.json has what was fitted on held-out rows, such as the temperature.\n\n"
        f"```python\n{export_program(info, check.format)}```\n"
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
