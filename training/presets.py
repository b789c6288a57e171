"""What a new run can start from: three goals (engine/presets.py), and the files of config/."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from accounts.permissions import visible
from datasets_app.models import Dataset, Version
from engine import safe_yaml
from engine.config import RunConfig
from engine.models.local_models import installed_samples
from engine.presets import PRESETS, Goal, preset_settings
from engine.task_types import TaskType

from .base_models import find_base_model, usual_base_model

USUAL: Goal = "balanced"
USUAL_TASK: TaskType = "sequence_classification"
TITLES = {"quick": _("Quick try"), "balanced": _("Balanced"), "best": _("Best")}

# Files of config/language_models that are settings for one sample dataset, by its name.
SAMPLE_RUNS = {"orders": _("Train a small assistant")}

Settings = dict[str, dict[str, object]]  # by section of a configuration


@cache
def files() -> dict[str, dict[str, Any]]:
    """Return the configurations in config/ by the name of their file."""
    folder = Path(settings.BASE_DIR) / "config"
    paths = [*sorted(folder.glob("*.yaml")), *(folder / "language_models" / f"{name}.yaml" for name in SAMPLE_RUNS)]
    return {path.stem: safe_yaml.read(path.read_text(encoding="utf-8")) for path in paths}


def own_settings(name: str, version: Version | None) -> Settings:
    """Return the settings that a preset owns, as they fit a dataset; `balanced` for an unknown name.

    A file of config/ owns its base model and the longest text that it reads; its other settings are for one label per text.
    That of a sample dataset owns all of its settings, and nothing where the data are others.
    """
    task = version.task_type if version else USUAL_TASK
    is_other_data = name in SAMPLE_RUNS and (version is None or version.dataset.name != name)
    if name not in files() or is_other_data or not can_learn(files()[name]["model"]["name"], task):
        goal = next((goal for goal in PRESETS if goal == name), USUAL)
        own = preset_settings(goal, task, training_rows(version))
        own["training"] = own["training"] | {"max_steps": None}  # how long is up to the epochs
        return own
    sections = {section: values for section, values in files()[name].items() if isinstance(values, dict)}
    if task != USUAL_TASK and name not in SAMPLE_RUNS:
        return {"model": sections["model"], "data": {"max_length": sections["data"]["max_length"]}}
    return sections | {"data": {key: value for key, value in sections["data"].items() if key != "dataset_name"}}


def training_rows(version: Version | None) -> int | None:
    """Return about how many rows a run on a dataset version trains on; None without a version."""
    return version.splits.get("train", version.rows) if version else None


def usual_settings(task: TaskType) -> Settings:
    """Return what a form of this task type starts with, whatever the data and the preset."""
    config = RunConfig.parse({"task": task}).model_dump(mode="json")
    settings = {section: values for section, values in config.items() if isinstance(values, dict)}
    del settings["data"]["dataset_name"]
    return settings


def fit_dataset(
    config: Mapping[str, Any], preset: str, before: Version | None, after: Version | None
) -> dict[str, Any]:
    """Return a configuration for one dataset as it fits another one, of which `preset` has set a part.

    Where the datasets ask for other task types, what is as usual for the one becomes what is usual for the other.
    """
    tasks = [version.task_type if version else USUAL_TASK for version in (before, after)]
    own = [own_settings(preset, version) if preset else {} for version in (before, after)]
    settings = [apply_settings(usual_settings(task), values) for task, values in zip(tasks, own, strict=True)]
    fitted = refit(config, *settings)
    if not can_learn(fitted.get("model", {}).get("name", ""), tasks[1]):
        fitted["model"] = fitted["model"] | {"name": usual_base_model(tasks[1]), "revision": None}
    return fitted


def apply_settings(config: Mapping[str, Any], own: Settings) -> dict[str, Any]:
    """Return a configuration with the settings of a preset, and everything else as it was."""
    return {**config, **{section: config.get(section, {}) | values for section, values in own.items()}}


def fit_loss(own: Settings, config: Mapping[str, Any]) -> Settings:
    """Return the settings of a preset without label smoothing where the configuration has a loss that excludes it.

    The loss is not the preset's, so what was chosen stays.
    """
    if not loss_excludes_smoothing(own, config):
        return own
    return own | {"training": own["training"] | {"label_smoothing_factor": 0.0}}


def loss_excludes_smoothing(own: Settings, config: Mapping[str, Any]) -> bool:
    """Return whether a preset sets label smoothing, and the loss of the configuration excludes that."""
    sets_smoothing = bool(own.get("training", {}).get("label_smoothing_factor"))
    return sets_smoothing and config.get("training", {}).get("loss") == "focal"


def refit(config: Mapping[str, Any], before: Settings, after: Settings) -> dict[str, Any]:
    """Return a configuration in which what a preset had set for one dataset is what it sets for another one.

    What was changed by hand since stays.
    """
    untouched = {
        section: {
            name: value
            for name, value in values.items()
            if config.get(section, {}).get(name) == before.get(section, {}).get(name)
        }
        for section, values in after.items()
    }
    return apply_settings(config, untouched)


def model_presets(task: TaskType) -> list[dict[str, str]]:
    """Return the presets that are base models for a task type, as {name, title}."""
    return [
        {"name": name, "title": config["model"]["name"]}
        for name, config in files().items()
        if name not in ("default", *SAMPLE_RUNS) and can_learn(config["model"]["name"], task)
    ]


def sample_runs(user: User) -> list[dict[str, str | Promise]]:
    """Return the presets for sample datasets that the person sees, as {name, title}, if their base models are installed."""
    installed = installed_samples()
    seen = visible(user, Dataset.objects.filter(name__in=SAMPLE_RUNS)).values_list("name", flat=True)
    return [{"name": name, "title": SAMPLE_RUNS[name]} for name in seen if files()[name]["model"]["name"] in installed]


def can_learn(base_model: str, task: TaskType) -> bool:
    """Return whether a base model can learn a task type, or whether that is not known."""
    model = find_base_model(base_model)
    return model is None or model.can_learn(task)
