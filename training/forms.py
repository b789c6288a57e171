"""The form of a new run, made from RunConfig field by field. It only collects; RunConfig is the validation."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import yaml
from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from pydantic.fields import FieldInfo

from engine import safe_yaml
from engine.config import RunConfig
from web.errors import LorasiteError, TooLarge

NAME = "experiment_name"
IN_SIGHT = {
    NAME: _("Experiment"),
    "data.dataset_name": _("Dataset"),
    "model.name": _("Base model"),
    "training.num_train_epochs": _("Epochs"),
    "training.learning_rate": _("Learning rate"),
    "training.per_device_train_batch_size": _("Batch size"),
    "lora.r": _("LoRA rank (r)"),
    "lora.lora_alpha": _("LoRA alpha"),
    "lora.target_modules": _("Layers to adapt"),
    "data.max_length": _("Longest text, in tokens"),
    "training.seed": _("Seed"),
}
SECTIONS = ("model", "lora", "data", "training", "system")


def described() -> Iterator[tuple[str, FieldInfo]]:
    """Every field of the configuration by its dotted name."""
    yield NAME, RunConfig.model_fields[NAME]
    for section in SECTIONS:
        model: Any = RunConfig.model_fields[section].annotation
        yield from ((f"{section}.{name}", info) for name, info in model.model_fields.items())


class RunForm(forms.Form):
    """Fields are named as in the configuration (`lora.r`); an empty one takes the configuration's default."""

    def __init__(self, data: Any = None, *, config: Mapping[str, Any], datasets: list[str], models: list[str]) -> None:
        super().__init__(data, initial=flat(config))
        self.config = config
        self.fields["token"] = forms.CharField(widget=forms.HiddenInput, initial=uuid.uuid4().hex)
        for path, info in described():
            self.fields[path] = form_field(path, info)
        self._offer("data.dataset_name", datasets)
        self._offer("model.name", models)

    def _offer(self, path: str, names: list[str]) -> None:
        """A choice among what is here; a name from a YAML stays in the list, so that its error can be told."""
        asked = self.data.get(path) or self.initial.get(path)
        listed = [*names, *([asked] if asked and asked not in names else [])]
        self.fields[path].widget = forms.Select(choices=[(name, name) for name in listed])

    def main_fields(self) -> list[forms.BoundField]:
        return [self[path] for path in IN_SIGHT]

    def folded(self) -> list[dict[str, Any]]:
        """The other fields, by section."""
        rest = [path for path in self.fields if path not in IN_SIGHT and path != "token"]
        groups = {s: [self[path] for path in rest if path.startswith(f"{s}.")] for s in SECTIONS}
        return [{"name": s, "fields": found, "wrong": any(f.errors for f in found)} for s, found in groups.items()]

    def configuration(self) -> dict[str, Any]:
        """The mapping that services.parse_config reads: what was filled in, nothing that was left empty."""
        if not self.is_bound:
            return dict(self.config)
        if sum(len(self.data.get(path, "")) for path, _info in described()) > safe_yaml.LIMIT:
            raise TooLarge(gettext("These values are too long for a configuration; nothing was queued. Shorten them."))
        found: dict[str, Any] = {}
        for path, info in described():
            value = parsed(info, self.data.get(path, ""))
            if value is not None:
                *section, name = path.split(".")
                (found.setdefault(section[0], {}) if section else found)[name] = value
        return found

    def take(self, error: LorasiteError) -> None:
        """Put each problem beside its field; what has no field here goes on top."""
        self.full_clean()
        for problem in error.problems or [{"field": "", "message": error.message}]:
            self.add_error(problem["field"] if problem["field"] in self.fields else None, str(problem["message"]))


def form_field(path: str, info: FieldInfo) -> forms.Field:
    """Strings throughout: what a value means is RunConfig's to say."""
    return forms.CharField(
        label=IN_SIGHT.get(path, path.partition(".")[2]),
        help_text=gettext(info.description) if info.description else "",
        required=False,
        widget=widget(info),
    )


def widget(info: FieldInfo) -> forms.Widget:
    if choices := fixed_choices(info.annotation):
        return forms.Select(choices=[(c, c) for c in choices])
    if {int, float} & kinds(info.annotation):
        return forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"})
    return forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"})


def fixed_choices(annotation: Any) -> list[str]:
    if annotation is bool:
        return ["false", "true"]
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def kinds(annotation: Any) -> set[Any]:
    return {annotation, *get_args(annotation)}


def parsed(info: FieldInfo, text: str) -> Any:
    """A field's text as YAML would read it, so that lists and mappings can be written; None when it is empty."""
    text = text.strip()
    if not text:
        return None
    if str in kinds(info.annotation) or fixed_choices(info.annotation):
        return text
    try:
        return safe_yaml.read(text)
    except safe_yaml.NotYamlError:
        return text


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as the form's texts."""
    pairs = [(name, value) for name, value in config.items() if name not in SECTIONS]
    for section in SECTIONS:
        pairs += [(f"{section}.{name}", value) for name, value in (config.get(section) or {}).items()]
    return {path: written(value) for path, value in pairs}


def written(value: Any) -> str:
    if value is None or value == {}:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
