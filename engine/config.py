"""The configuration of a run: one Pydantic model with one YAML form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, get_args

import yaml
from pydantic import ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from engine import safe_yaml
from engine.config_problems import ContradictionsError, list_problems
from engine.config_sections import Configuration, FindingCode, Section
from engine.contradictions import find_contradictions, find_unfit_settings
from engine.errors import ConfigError, Problem
from engine.names import explain_refusal, normalise_name
from engine.presets import task_defaults
from engine.sentences import Sentence, gettext_noop
from engine.task_types import METRICS

# What a field allows, where Pydantic's own message says too little.
ALLOWED_VALUES = {
    "model.name": Sentence(
        gettext_noop(
            "must be a hub id such as distilbert-base-uncased or the name of a folder under BASE_MODELS_DIR, never a path."
        )
    ),
    "model.revision": Sentence(
        gettext_noop("must be a branch, tag or commit: letters, digits, hyphens, underscores and dots.")
    ),
    "lora.target_modules": Sentence(gettext_noop("must be empty, all-linear or a list of module names.")),
    "training.class_weights": Sentence(
        gettext_noop("must be none, balanced, or a mapping of label names to weights, none of them negative.")
    ),
    "data.validation_rules": Sentence(
        gettext_noop("must map finding codes ({codes}) to error, warning or ignore."),
        codes=", ".join(get_args(FindingCode)),
    ),
}


class RunConfig(Configuration):
    """The complete configuration of a run. Read it with `parse` or `from_yaml`, which report all problems at once."""

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> RunConfig:
        """Validate a mapping. Raises ConfigError with every problem (at most 100), its field and what is allowed."""
        if not isinstance(data, Mapping):
            raise ConfigError(
                [
                    Problem(
                        "",
                        Sentence(
                            gettext_noop("A configuration must be a mapping of sections, such as model: and lora:.")
                        ),
                        "type",
                    )
                ]
            )
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            problems = list_problems(error, cls, ALLOWED_VALUES)
        raise ConfigError(problems)

    @classmethod
    def from_yaml(cls, text: str) -> RunConfig:
        """Read the YAML form. Raises ConfigError, which names the line if the text is not valid YAML."""
        try:
            data = safe_yaml.read(text)
        except safe_yaml.NotYamlError as error:
            raise ConfigError([Problem("", error.message, "yaml")]) from None
        return cls.parse({} if data is None else data)

    def concise(self) -> dict[str, Any]:
        """Return what differs from the defaults of the task type, and always the names of experiment, base model and dataset."""
        defaults = RunConfig.parse({"task": self.task}).model_dump(mode="json")
        changed: dict[str, Any] = {} if self.task == RunConfig.model_fields["task"].default else {"task": self.task}
        for section, values in self.model_dump(mode="json").items():
            if isinstance(values, dict):
                different = {name: value for name, value in values.items() if value != defaults[section][name]}
                changed |= {section: different} if different else {}
        return {
            **changed,
            "experiment_name": self.experiment_name,
            "model": {"name": self.model.name, **changed.get("model", {})},
            "data": {"dataset_name": self.data.dataset_name, **changed.get("data", {})},
        }

    def to_yaml(self) -> str:
        """Return the YAML form with all defaults, which `from_yaml` reads back to an equal configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_task_defaults(cls, data: Any) -> Any:
        """Fill in what is left out and depends on the task type."""
        # A value of another type is refused later, in words.
        if not isinstance(data, dict) or not isinstance(data.get("task"), str) or data["task"] not in METRICS:
            return data
        for section, defaults in task_defaults(data["task"]).items():
            values = data.get(section, {})
            if isinstance(values, dict):
                data = data | {section: defaults | values}
            elif isinstance(values, Section):
                missing = {name: value for name, value in defaults.items() if name not in values.model_fields_set}
                data = data | {section: values.model_copy(update=missing)}
        return data

    @field_validator("experiment_name", mode="before")
    @classmethod
    def _name_as_text(cls, value: object) -> object:
        """Turn a name that YAML reads as a number (2024) or a date (2024-11-25) back into text, and compose its letters."""
        if isinstance(value, int | float | date) and not isinstance(value, bool):
            return str(value)
        return normalise_name(value) if isinstance(value, str) else value

    @field_validator("experiment_name")
    @classmethod
    def _refuse_invalid_name(cls, name: str) -> str:
        if refusal := explain_refusal(name):
            raise PydanticCustomError("string_pattern_mismatch", "{refusal}", {"refusal": refusal})
        return name

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> RunConfig:
        problems = [*find_contradictions(self), *find_unfit_settings(self)]
        if problems:
            raise ContradictionsError(problems)
        return self
