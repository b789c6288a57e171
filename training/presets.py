"""Where a new run can start from: three goals on the sample base model, and the files of config/."""

from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from engine import safe_yaml
from engine.config import SAMPLE_MODEL

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
    """The presets of config/ by name."""
    folder = Path(settings.BASE_DIR) / "config"
    return {path.stem: safe_yaml.read(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))}


def preset(name: str) -> dict[str, Any]:
    """The configuration of a goal or a file; that of `balanced` when there is no such name."""
    if name in files():
        return {k: v for k, v in files()[name].items() if k != "experiment_name"}
    return GOALS.get(name, GOALS["balanced"])


def names() -> list[dict[str, Any]]:
    """What the page offers: goals first, then base models."""
    goals = [{"name": name, "title": title} for name, title in TITLES.items()]
    return goals + [{"name": n, "title": c["model"]["name"]} for n, c in files().items() if n != "default"]


def base_models() -> list[str]:
    """The sample, the folders under BASE_MODELS_DIR, and the presets' models of the hub."""
    folder = settings.BASE_MODELS_DIR
    own = sorted(p.name for p in folder.iterdir() if (p / "config.json").exists()) if folder and folder.is_dir() else []
    known = [c["model"]["name"] for c in files().values()]
    return list(dict.fromkeys([SAMPLE_MODEL, *own, *known]))
