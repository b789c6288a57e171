"""The form of a new run. It only collects; RunConfig is the validation."""

import uuid
from typing import Any

import yaml
from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from accounts.errors import LorasiteError

SAMPLE = "sentence-transformers/all-MiniLM-L6-v2"
HUB = ("distilbert-base-uncased", "roberta-base", "albert-base-v2", "bert-base-chinese")
# form field -> the configuration's field; what people change stands in sight, the rest goes into `more`
FIELDS = {
    "dataset_name": "data.dataset_name", "model_name": "model.name", "num_train_epochs": "training.num_train_epochs",
    "learning_rate": "training.learning_rate", "per_device_train_batch_size": "training.per_device_train_batch_size",
    "r": "lora.r", "lora_alpha": "lora.lora_alpha", "max_length": "data.max_length", "seed": "training.seed",
}  # fmt: skip


class RunForm(forms.Form):
    token = forms.CharField(widget=forms.HiddenInput)
    experiment_name = forms.CharField(label=_("Experiment"), max_length=80, help_text=_("The name of its results."))
    dataset_name = forms.ChoiceField(label=_("Dataset"))
    model_name = forms.ChoiceField(label=_("Base model"))
    num_train_epochs = forms.FloatField(
        label=_("Epochs"), initial=2, help_text=_("Passes over the data; 2 to 4 is usual.")
    )
    learning_rate = forms.FloatField(
        label=_("Learning rate"), initial=0.001, help_text=_("0.0002 to 0.002 is usual for LoRA.")
    )
    per_device_train_batch_size = forms.IntegerField(label=_("Batch size"), initial=32)
    r = forms.IntegerField(label=_("LoRA rank (r)"), initial=8)
    lora_alpha = forms.IntegerField(label=_("LoRA alpha"), initial=16)
    max_length = forms.IntegerField(label=_("Longest text, in tokens"), initial=128)
    seed = forms.IntegerField(label=_("Seed"), initial=42)
    more = forms.CharField(
        label=_("Everything else, as YAML"), required=False, widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
        help_text=_("Any other field of the configuration, by its section, as in: training: {warmup_ratio: 0.1}"),
    )  # fmt: skip

    def __init__(self, *args: Any, datasets: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["token"].initial = uuid.uuid4().hex
        self.fields["dataset_name"].choices = [(n, n) for n in datasets]  # type: ignore[attr-defined]
        self.fields["model_name"].choices = [(n, n) for n in base_models()]  # type: ignore[attr-defined]
        for name, field in self.fields.items():
            if name in FIELDS and isinstance(field.widget, forms.NumberInput):
                field.widget.attrs["step"] = "any"

    def main_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in ("token", "more")]

    def configuration(self) -> dict[str, Any]:
        """The mapping that services.parse_config reads."""
        found = self.other_sections() | {"experiment_name": self.cleaned_data["experiment_name"]}
        for name, path in FIELDS.items():
            section, field = path.split(".")
            found.setdefault(section, {})[field] = self.cleaned_data[name]
        return found

    def other_sections(self) -> dict[str, Any]:
        given = yaml.safe_load(self.cleaned_data.get("more") or "{}")
        return {k: dict(v) if isinstance(v, dict) else v for k, v in given.items()}

    def clean_more(self) -> str:
        text: str = self.cleaned_data["more"]
        try:
            if not isinstance(yaml.safe_load(text or "{}"), dict):
                raise forms.ValidationError(_("Write sections with fields, as in: training: {warmup_ratio: 0.1}"))
        except yaml.YAMLError as error:
            raise forms.ValidationError(_("This is not YAML: %s") % error) from None
        return text

    def take(self, error: LorasiteError) -> None:
        """Put each problem beside its field; what has no field here goes on top."""
        names = {path: name for name, path in FIELDS.items()} | {"experiment_name": "experiment_name"}
        for problem in error.problems or [{"field": "", "message": error.message}]:
            name = names.get(problem["field"]) or ("more" if problem["field"] else None)
            self.add_error(name, str(problem["message"]))


def base_models() -> list[str]:
    folder = settings.BASE_MODELS_DIR
    own = sorted(p.name for p in folder.iterdir() if (p / "config.json").exists()) if folder and folder.is_dir() else []
    return [SAMPLE, *own, *HUB]
