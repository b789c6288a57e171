"""Write the README.md of an export: what it is, how it was compared, and a program that uses it."""

from __future__ import annotations

from pathlib import Path

from engine.export.comparison import ExportCheck
from engine.export.programs import export_program
from engine.serve.predictor import LoadedModel


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
