"""The form of a new run, built from RunConfig field by field. It only collects; RunConfig validates."""

import uuid
from collections.abc import Collection, Iterator, Mapping
from types import NoneType
from typing import Any, Literal, NamedTuple, TypedDict, cast, get_args, get_origin

import yaml
from django import forms
from django.http import QueryDict
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from pydantic.fields import FieldInfo

from engine import safe_yaml
from engine.config import RunConfig
from engine.contradictions import unused_settings
from engine.models.plain_templates import TITLES
from engine.task_types import TaskType
from experiments.task_types import TASK_TYPES, USUAL
from web.errors import RequestTooLargeError
from web.forms import ServiceErrorsMixin

from .base_models import BaseModel
from .field_words import FIELD_WORDS, WORDS_BY_TASK

NAME = "experiment_name"
TASK = "task"
# Fields whose default depends on the dataset or on the task type: what an empty one is called.
OPEN_FIELDS = {
    TASK: _("what the dataset asks for"),
    "training.metric_for_best_model": _("default of the task type"),
    "training.loss": _("default of the task type"),
}
BLOCKS = {  # titles and fields
    _("Data"): (NAME, "data.dataset_name", TASK, "data.max_length"),
    _("Model"): ("model.name", "model.chat_template", "lora.r", "lora.lora_alpha", "lora.target_modules"),
    _("How long"): (
        "training.num_train_epochs",
        "training.learning_rate",
        "training.per_device_train_batch_size",
        "training.seed",
    ),
}
MAIN_FIELDS = {path for paths in BLOCKS.values() for path in paths}
SECTIONS: dict[str, object] = {  # titles by name
    "model": _("model"),
    "lora": "LoRA",
    "data": _("data"),
    "training": _("training"),
    "system": _("system"),
}


class Section(TypedDict):
    title: str
    fields: list[forms.BoundField]
    is_open: bool


class ConfigField(NamedTuple):
    """A field of the configuration, by its dotted name such as `lora.r`."""

    path: str
    info: FieldInfo
    choices: list[str]  # all that it may be, or none if it may be anything
    types: set[object]  # its annotation and the parts of it: `int | None` has int, NoneType and itself


def config_fields() -> Iterator[ConfigField]:
    """Yield every field of the configuration in its order."""
    infos = {name: RunConfig.model_fields[name] for name in (NAME, TASK)}
    for section in SECTIONS:
        model: Any = RunConfig.model_fields[section].annotation
        infos |= {f"{section}.{name}": info for name, info in model.model_fields.items()}
    for path, info in infos.items():
        choices: list[str] = []
        if info.annotation is bool:
            choices = ["false", "true"]
        else:
            optional = [part for part in get_args(info.annotation) if part is not NoneType]
            annotation = (
                optional[0] if len(optional) == 1 and NoneType in get_args(info.annotation) else info.annotation
            )
            if get_origin(annotation) is Literal:
                choices = list(get_args(annotation))
        yield ConfigField(path, info, choices, {info.annotation, *get_args(info.annotation)})


class Switch(forms.CheckboxInput):
    """A switch that sends false when it is off, because what a form leaves out takes its default, which may be true."""

    def __init__(self) -> None:
        super().__init__(attrs={"role": "switch"}, check_test=lambda value: value == "true")

    def format_value(self, value: object) -> str:
        return "true"

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        return str(data.get(name, ""))  # of two values the last

    def render(self, name: str, value: object, attrs: Any = None, renderer: Any = None) -> SafeString:
        off = format_html('<input type="hidden" name="{}" value="false">', name)
        return off + super().render(name, value, attrs, renderer)


class RunForm(ServiceErrorsMixin):
    """Fields have the dotted names of the configuration; an empty one takes the configuration's default."""

    def __init__(
        self,
        data: QueryDict | dict[str, str] | None = None,
        *,
        config: Mapping[str, Any],
        task: str = "sequence_classification",
        datasets: list[tuple[str, str]],
        models: list[BaseModel],
        task_sentence: str = "",
    ) -> None:
        self.task = cast(TaskType, task if task in TASK_TYPES else USUAL)
        # What an empty field means: it depends on the task type.
        defaults = form_texts(RunConfig.parse({"task": task}).model_dump(mode="json")) if task in TASK_TYPES else {}
        super().__init__(data, initial=form_texts(config, defaults))
        self.config = config
        self.datasets = datasets
        # Makes two clicks on Start one run: services.submit takes it as the idempotency key.
        self.fields["token"] = forms.CharField(widget=forms.HiddenInput, initial=uuid.uuid4().hex)
        for name in ("preset", "preset_dataset", "like"):
            self.fields[name] = forms.CharField(widget=forms.HiddenInput, required=False)
        unused = unused_settings(self.task)
        for field in config_fields():
            if field.path not in unused:
                self.fields[field.path] = form_field(field, defaults.get(field.path, ""), self.task)
        # Without a task type in the configuration, this sentence says which one the dataset asks for.
        self.fields[TASK].help_text = f"{self.fields[TASK].help_text} {task_sentence}".strip()
        # A name that came from a YAML text stays in the list, so that its error can be shown.
        path = "data.dataset_name"
        current = self.data.get(path) or self.initial.get(path)
        choices = [*datasets]
        if current and current not in dict(datasets):
            choices.append((current, current))
        self.fields[path].widget = forms.Select(choices=choices)
        usable = [model for model in models if model.can_learn(self.task)]
        self.base_models = {
            "here": [model for model in usable if model.is_here],
            "recommended": [model for model in usable if not model.is_here],
        }
        # Suggestions for browsers without JavaScript; base_model.js has a list of its own.
        self.fields["model.name"].widget.attrs["list"] = "base-model-names"
        # The settings of a preset depend on the data: fit them to a dataset that is chosen later.
        self.fields["data.dataset_name"].widget.attrs |= {
            "hx-post": reverse("training:new"),
            "hx-vals": '{"do": "dataset"}',
            "hx-include": "#run-form",
            "hx-target": "#new-run",
            "hx-select": "#new-run",
            "hx-swap": "outerHTML",
        }

    def main_blocks(self) -> list[tuple[str, list[forms.BoundField]]]:
        """Return the fields that everybody looks at, by the question that they answer, each block with its title."""
        return [(str(title), [self[path] for path in paths if path in self.fields]) for title, paths in BLOCKS.items()]

    def advanced_sections(self, unfolded: Collection[str] = ()) -> list[Section]:
        """Return the other fields by section of the configuration. Sections with a field of `unfolded` or an error are open."""
        sections: list[Section] = []
        for section, title in SECTIONS.items():
            paths = [path for path in self.fields if path.startswith(f"{section}.") and path not in MAIN_FIELDS]
            fields = [self[path] for path in paths]
            is_open = any(field.errors or field.name in unfolded for field in fields)
            sections.append({"title": str(title), "fields": fields, "is_open": is_open})
        return sections

    def configuration(self) -> dict[str, Any]:
        """Return the mapping that services.parse_config reads: the values that were filled in, none that was left empty."""
        if not self.is_bound:
            return dict(self.config)
        if sum(len(self.data.get(field.path, "")) for field in config_fields()) > safe_yaml.LIMIT:
            raise RequestTooLargeError(
                gettext("These values are too long for a configuration; nothing was queued. Shorten them.")
            )
        config: dict[str, Any] = {}
        for field in config_fields():
            text = self.data.get(field.path, "").strip()
            if not text:
                continue
            value = parse_field(field, text)
            if "." not in field.path:
                config[field.path] = value
            else:
                section, name = field.path.split(".")
                config.setdefault(section, {})[name] = value
        return config


def form_field(field: ConfigField, default: str, task: str) -> forms.Field:
    """Return a text field, whatever the type: RunConfig decides what a value means.

    default: what it means if it is empty. task: the task type, which some words depend on.
    """
    widget: forms.Widget
    if field.info.annotation is bool:
        widget = Switch()
    elif field.choices:
        choices: list[tuple[str, Any]] = [(choice, choice) for choice in field.choices]
        if field.path == TASK:
            choices = [(choice, TASK_TYPES[choice].title) for choice in field.choices if choice in TASK_TYPES]
        if field.path == "model.chat_template":
            choices = [(choice, TITLES[choice]) for choice in field.choices]
        if field.path in OPEN_FIELDS:
            choices.insert(0, ("", OPEN_FIELDS[field.path]))
        widget = forms.Select(choices=choices)
    elif {int, float} & field.types:
        widget = forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"})
    else:
        widget = forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"})
    if not field.choices and default:
        widget.attrs["placeholder"] = default
    words = WORDS_BY_TASK.get(task, {}).get(field.path) or FIELD_WORDS[field.path]
    description = gettext(field.info.description) if field.info.description else ""
    return forms.CharField(
        label=str(words.title), help_text=f"{description} {words.advice}".strip(), required=False, widget=widget
    )


def parse_field(field: ConfigField, text: str) -> object:
    """Return a field's text as YAML reads it, so that lists and mappings can be entered."""
    if "," in text and not text.startswith("[") and any(get_origin(kind) is list for kind in field.types):
        text = f"[{text}]"
    # As YAML, a dataset called "1e3" or "no" would not be a text.
    if str in field.types or field.choices:
        return text
    try:
        return safe_yaml.read(text)
    except safe_yaml.NotYamlError:
        return text  # RunConfig refuses it in words, next to the field


def form_texts(config: Mapping[str, Any], defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a configuration as the texts of the form's fields.

    defaults: what empty fields mean. Where that is a value, None is written out.
    """
    texts = {name: field_text(value) for name, value in config.items() if name not in SECTIONS}
    for section in SECTIONS:
        for name, value in (config.get(section) or {}).items():
            path = f"{section}.{name}"
            texts[path] = "null" if value is None and defaults and defaults.get(path) else field_text(value)
    return texts


def field_text(value: object) -> str:
    """Return a value as text that `parse_field` reads back."""
    if value is None or value == {}:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
