"""The base models that a run can start from: those on this machine, then the recommended ones of the hub.

The form, the API and the command show this list. It also says which of them read the language of a dataset.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.conf.locale import LANG_INFO
from django.utils.text import get_text_list
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.permissions import allowed_base_models
from datasets_app.checks import UNKNOWN_LANGUAGE
from datasets_app.descriptions import language_name
from datasets_app.models import Version
from engine.config_sections import SAMPLE_MODEL
from engine.models.architectures import find_architecture
from engine.models.local_models import LocalModel, list_local_models
from engine.models.recommended import RECOMMENDED_MODELS, RecommendedModel, covers, find_recommended, readers_of
from engine.models.supported_types import heads_of
from engine.presets import task_defaults
from engine.task_types import HeadKind, TaskType, head_of
from experiments.task_types import TASK_TYPES

# A run on data in two languages needs a base model for both; a few foreign rows don't matter.
LEAST_SHARE = 0.25
# What the checks of datasets call the languages of these codes, where Django's name is another one: some they can't tell apart.
NAMES_BY_CODE = {
    "zh": "Chinese",
    "sl": "Slovene",
    **dict.fromkeys(("no", "nb", "nn"), "Norwegian"),
    **dict.fromkeys(("bs", "hr", "sr"), "Serbo-Croatian"),
    **dict.fromkeys(("id", "ms"), "Indonesian"),
}
LANGUAGE_NOTICE = "base_model_language"  # code of the notice that a base model does not read the data


@dataclass(frozen=True)
class BaseModel:
    """What a person should know of a base model before choosing it. None and empty texts are what is not known.

    place: sample, folder or hub_cache on this machine; hub if it would be downloaded.
    """

    name: str
    place: str
    recommended: bool = False
    parameters_m: float | None = None
    languages: tuple[str, ...] = ()
    language_count: int | None = None
    licence: str = ""
    longest_text: int | None = None
    fused_kernels: bool | None = None
    shared_serving: bool | None = None
    safetensors: bool = True
    revision: str = ""
    purpose: str = ""
    heads: tuple[HeadKind, ...] = ()

    @property
    def task_types(self) -> list[str]:
        """Return the task types that it can learn; none if that is not known."""
        return [task for task in TASK_TYPES if head_of(cast(TaskType, task)) in self.heads]

    def can_learn(self, task: TaskType) -> bool:
        """Return whether it can learn a task type, or whether that is not known."""
        return not self.heads or head_of(task) in self.heads

    @property
    def is_here(self) -> bool:
        return self.place != "hub"

    @property
    def size(self) -> str:
        """Return the number of parameters as people say it."""
        if self.parameters_m is None:
            return ""
        millions = f"{self.parameters_m:.3g}" if self.parameters_m < 1000 else f"{self.parameters_m:,.0f}"
        return _("%(millions)s million parameters") % {"millions": millions}

    @property
    def languages_read(self) -> str:
        """Return its languages by name if they are few, else how many there are."""
        count = self.language_count
        if count is None:
            return ""
        if 0 < len(self.languages) <= 2:
            return name_languages(self.languages)
        return ngettext("%(count)s language", "%(count)s languages", count) % {"count": f"{count:,}"}

    @property
    def details(self) -> str:
        """Return size, languages, licence, longest text and what is fast as one line."""
        facts = [self.size, self.languages_read, self.licence]
        if self.longest_text:
            facts.append(_("up to %(tokens)s tokens") % {"tokens": f"{self.longest_text:,}"})
        if self.fused_kernels:
            facts.append(_("fast to train"))
        if self.shared_serving:
            facts.append(_("shares memory when served"))
        return " · ".join(filter(None, facts))


def list_base_models() -> list[BaseModel]:
    """Return the base models that runs may use: first those on this machine, then the recommended ones of the hub."""
    local_models = list_local_models(base_models_dir())
    names = {model.name for model in local_models if model.place == "hub_cache"}
    allowed = allowed_base_models(names.union(*(model.names for model in RECOMMENDED_MODELS)))
    usable = [model for model in local_models if model.place != "hub_cache" or model.name in allowed]
    usable_names = {model.name for model in usable}
    models = [describe_local(model) for model in usable]
    for recommended in RECOMMENDED_MODELS:
        allowed_names = [name for name in recommended.names if name in allowed]
        if allowed_names and not usable_names & set(recommended.names):
            models.append(describe_recommended(recommended, allowed_names[0]))
    return models


def base_models_dir() -> Path | None:
    return Path(settings.BASE_MODELS_DIR) if settings.BASE_MODELS_DIR else None


def describe_local(model: LocalModel) -> BaseModel:
    """Return a model on this machine: as the table of recommended ones has it, else by its files."""
    recommended = find_recommended(model.name)
    if recommended:
        return describe_recommended(recommended, model.name, model.place)
    facts = model.read_facts()
    architecture = find_architecture(facts.config)
    languages, language_count, licence = read_card_facts(facts.card)
    return BaseModel(
        name=model.name,
        place=model.place,
        parameters_m=None if facts.parameters is None else facts.parameters / 1e6,
        languages=languages,
        language_count=language_count,
        licence=licence,
        longest_text=facts.longest_text,
        fused_kernels=architecture is not None and architecture.run_head is not None,
        shared_serving=architecture is not None,
        heads=heads_of(facts.config),
    )


def read_card_facts(card: Mapping[str, Any]) -> tuple[tuple[str, ...], int | None, str]:
    """Return languages, their number (None if not known) and licence by the metadata of a model's card on the hub."""
    codes = card.get("language") or []
    codes = [codes] if isinstance(codes, str) else codes
    licence = card.get("license")
    languages = [language_of_code(code) for code in codes] if isinstance(codes, list) else []
    known = [language for language in languages if language]
    # "multilingual" and the like name no language, so that it is not known which others it reads.
    if not known or len(known) < len(languages):
        return (), None, licence if isinstance(licence, str) else ""
    return tuple(dict.fromkeys(known)), len(languages), licence if isinstance(licence, str) else ""


def language_of_code(code: object) -> str:
    """Return the English name of a language by its code on the hub; empty if it is not known."""
    if code is False:  # what YAML reads in "no", the code of Norwegian
        code = "no"
    text = str(code).lower()
    if text in NAMES_BY_CODE:
        return NAMES_BY_CODE[text]
    return str(LANG_INFO[text]["name"]) if "name" in LANG_INFO.get(text, {}) else ""


def find_base_model(name: str) -> BaseModel | None:
    """Return what is known of a base model: one that is recommended or on this machine; None for others."""
    recommended = find_recommended(name)
    if recommended:
        return describe_recommended(recommended, name)
    local = next((model for model in list_local_models(base_models_dir()) if model.name == name), None)
    return describe_local(local) if local else None


def describe_recommended(model: RecommendedModel, name: str, place: str = "hub") -> BaseModel:
    return BaseModel(
        name=name,
        place=place,
        recommended=True,
        parameters_m=model.parameters_m,
        languages=model.languages,
        language_count=model.language_count,
        licence=model.licence,
        longest_text=model.longest_text,
        fused_kernels=model.fused_kernels,
        shared_serving=model.shared_serving,
        # A model on this machine has passed the check of its weights, or will be refused with a sentence.
        safetensors=model.safetensors or place != "hub",
        revision="" if place == "folder" else model.revision,
        purpose=_(model.purpose),
        heads=heads_of({"model_type": model.model_type}, is_complete=False),
    )


def filter_base_models(
    models: Collection[BaseModel], query: str = "", language: str = "", task: TaskType | None = None
) -> list[BaseModel]:
    """Return the models that have all words of `query` in what is known of them, read the language and can learn the task type.

    Models whose languages are not known are left out if a language is asked for.
    """
    words = query.casefold().split()
    matching = []
    for model in models:
        text = f"{model.name} {model.details} {model.purpose} {' '.join(model.languages)}".casefold()
        reads = not language or (model.language_count is not None and covers(model.languages, [language]))
        if reads and (task is None or model.can_learn(task)) and all(word in text for word in words):
            matching.append(model)
    return matching


def name_languages(languages: Collection[str]) -> str:
    """Return languages as a phrase in the reader's language."""
    return get_text_list([language_name(name) for name in languages], _("and"))


def languages_of(version: Version) -> list[str]:
    """Return the languages of at least a quarter of the rows whose language was detected; none if it can't be told."""
    rows_by_language: dict[str, int] = {}
    for name, rows in version.languages.items():
        language = name.partition(" (")[0]  # both scripts of Chinese are one language to a base model
        rows_by_language[language] = rows_by_language.get(language, 0) + rows
    rows_by_language.pop(UNKNOWN_LANGUAGE, None)
    total = sum(rows_by_language.values())
    return [language for language, rows in rows_by_language.items() if rows >= LEAST_SHARE * total]


def usual_base_model(task: TaskType) -> str:
    """Return the base model of a configuration that names none."""
    return str(task_defaults(task).get("model", {}).get("name", SAMPLE_MODEL))


def suggest_base_model(languages: Collection[str], task: TaskType = "sequence_classification") -> BaseModel | None:
    """Return the best base model for a task type with texts in these languages: one on this machine if there is any.

    None if runs may use none that reads them.
    """
    models = {model.name: model for model in list_base_models() if model.can_learn(task)}
    readers = [models[name] for reader in readers_of(languages) for name in reader.names if name in models]
    here = [model for model in readers if model.is_here]
    elsewhere = [model for model in readers if model.safetensors]
    return next(iter(here or elsewhere), None)


def default_base_model(version: Version | None) -> BaseModel | None:
    """Return the base model to fill in for data: the usual one if it reads them, else another one on this machine.

    None means the usual one, too: there is no better one here, or the language of the data is not known.
    """
    languages = languages_of(version) if version else []
    if version is None or not languages:
        return None
    usual = find_recommended(usual_base_model(version.task_type))
    if usual and covers(usual.languages, languages):
        return None
    suggested = suggest_base_model(languages, version.task_type)
    return suggested if suggested and suggested.is_here else None


@dataclass(frozen=True)
class LanguageMismatch:
    """A dataset in languages that the chosen base model was not trained on, and a base model that reads them."""

    dataset: str
    languages: list[str]
    model: str
    read: str
    better: BaseModel | None

    @property
    def sentence(self) -> str:
        """Return what is wrong, in the reader's language."""
        facts = {"dataset": self.dataset, "model": self.model, "read": self.read}
        facts["languages"] = name_languages(self.languages)
        return _("The data %(dataset)s are in %(languages)s; the base model %(model)s reads %(read)s.") % facts

    @property
    def advice(self) -> str:
        """Return what to do about it."""
        if self.better is None:
            return _("Ask an administrator to allow a base model for this language.")
        if self.better.is_here:
            return _("%(better)s, which is on this machine, reads it.") % {"better": self.better.name}
        message = _(
            "No base model on this machine reads it. %(better)s does, and is downloaded from the model hub when the run starts."
        )
        return message % {"better": self.better.name}

    def as_notice(self) -> dict[str, str]:
        """Return it as the notices of a task have it."""
        return {"level": "warning", "code": LANGUAGE_NOTICE, "message": f"{self.sentence} {self.advice}"}


def find_language_mismatch(version: Version | None, name: str) -> LanguageMismatch | None:
    """Return the mismatch between data and a base model; None if they fit, or if either is not known.

    name: of the base model; empty for the usual one, as in a configuration.
    """
    languages = languages_of(version) if version else []
    if version is None or not languages:
        return None
    name = name or usual_base_model(version.task_type)
    chosen = find_base_model(name)
    if chosen is None or chosen.language_count is None or covers(chosen.languages, languages):
        return None
    return LanguageMismatch(
        dataset=str(version),
        languages=languages,
        model=name,
        read=chosen.languages_read,
        better=suggest_base_model(languages, version.task_type),
    )
