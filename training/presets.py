"""What a new run can start from: three goals with the sample base model, and the files of config/."""

from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from engine import safe_yaml

from .base_models import BaseModel, list_base_models

# Measured on the sample tweets with the sample base model: docs/performance.md.
GOALS: dict[str, dict[str, Any]] = {
    "quick": {
        "lora": {"r": 8, "lora_alpha": 16},
        "data": {"train_samples": 2000, "eval_samples": 500},
        "training": {"learning_rate": 1e-3, "num_train_epochs": 1},
    },
    "balanced": {
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "training": {"learning_rate": 1e-3, "num_train_epochs": 1},
    },
    "best": {
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "training": {"learning_rate": 1e-3, "num_train_epochs": 3},
    },
}
TITLES = {"quick": _("Quick try"), "balanced": _("Balanced"), "best": _("Best")}


@cache
def files() -> dict[str, dict[str, Any]]:
    """Return the configurations in config/ by the name of their file."""
    folder = Path(settings.BASE_DIR) / "config"
    return {path.stem: safe_yaml.read(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))}


def preset(name: str) -> dict[str, Any]:
    """Return the configuration of a goal or a file; `balanced` for an unknown name."""
    if name in files():
        return {key: value for key, value in files()[name].items() if key != "experiment_name"}
    return GOALS.get(name, GOALS["balanced"])


def names() -> list[dict[str, Any]]:
    """Return what the page offers as {name, title}: goals first, then base models."""
    goals = [{"name": name, "title": title} for name, title in TITLES.items()]
    models = [{"name": name, "title": config["model"]["name"]} for name, config in files().items() if name != "default"]
    return goals + models


def base_models() -> list[BaseModel]:
    """Return the base models that a run can start from."""
    return list_base_models()
