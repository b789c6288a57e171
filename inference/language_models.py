"""Language models that can write: registered ones, those of finished runs, and base models on this machine."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from django.utils.translation import gettext as _

from accounts.permissions import permission_object
from engine.errors import EngineError
from engine.models.base_models import needs_conversion, resolve
from engine.models.plain_templates import TEMPLATES
from experiments.models import Experiment, ModelVersion
from experiments.results import read_facts
from samples.language_model import conversion
from training.base_models import base_models_dir, list_base_models
from web.errors import ConflictError, InvalidError, NotFoundError
from web.sentences import translate

from .selectors import OFFERED, Model, Models, with_model
from .services import PreparingError

SECONDS_OF_CONVERSION = 20.0  # after which a caller tries again
BASE_MODEL_OWNER = "base-model"  # what /v1/models says of models that nobody here has made


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A model that can write. `source` is None for a base model, whose `base_model` is its own name."""

    name: str
    base_model: str
    source: Experiment | ModelVersion | None = None

    @property
    def folder(self) -> Path:
        """Return where its files lie. Raises ConflictError if a base model can't be read, PreparingError while the sample is converted."""
        if self.source is not None:
            return Model.of(self.source).folder
        if needs_conversion(self.base_model, base_models_dir()) and conversion.start():
            raise PreparingError(wait=SECONDS_OF_CONVERSION)
        try:
            return resolve(self.base_model, base_models_dir())
        except EngineError as error:
            raise ConflictError(translate(error.message), field="model") from None


@dataclass(frozen=True, slots=True)
class LanguageModelOffer:
    """A model in the list of /v1/models."""

    name: str
    owner: str
    created_at: datetime | None = None

    @classmethod
    def of(cls, model: LanguageModel) -> "LanguageModelOffer":
        if model.source is None:
            return cls(model.name, BASE_MODEL_OWNER)
        owner = permission_object(model.source).owner
        return cls(model.name, owner.username, model.source.created_at)


def choose_language_model(models: Models, name: str) -> LanguageModel:
    """Return the registered model, the experiment or else the base model of this name.

    NotFound without any, Invalid if it is of another task type.
    """
    try:
        chosen = models.named(name)
    except NotFoundError:
        if name not in base_model_names(models):
            message = _("There is no model %(name)s that you have access to. GET /v1/models lists yours.")
            raise NotFoundError(message % {"name": name[:120]}, field="model") from None
        return LanguageModel(name, name)
    return from_model(chosen)


def template_beside(model: LanguageModel, tuned: LanguageModel) -> str | None:
    """Return the plain chat template that a model was trained with, if this is its base model, which has none of its own."""
    if model.source is not None or tuned.source is None or tuned.base_model != model.name:
        return None
    template = read_facts(tuned.folder).get("chat_template")
    return template if template in TEMPLATES else None


def from_model(model: Model) -> LanguageModel:
    """Return a trained model that can write; Invalid for one that classifies."""
    if not model.source.is_language_model:
        message = _("%(name)s answers with labels or numbers and writes no text. Send texts to /api/predict.")
        raise InvalidError(message % {"name": model.name}, field="model")
    return LanguageModel(model.name, model.source.base_model, model.source)


def base_model_names(models: Models) -> list[str]:
    """Return the names of the language models among the base models on this machine, those of the hub if they are allowed.

    None where `models` are restricted to a single one.
    """
    if models.default:
        return []
    return sorted(model.name for model in list_base_models() if model.is_here and "causal" in model.heads)


def offered_language_models(models: Models) -> list[LanguageModelOffer]:
    """Return the models to choose from: registered ones, newest first, then experiments, then base models."""
    models = replace(models, write=True)
    registered = models.of_kind(models.registered).order_by("-updated_at")
    experiments = with_model(models.of_kind(models.experiments))
    offers = [
        LanguageModelOffer(name, owner, created_at)
        for queryset, created in ((registered, "updated_at"), (experiments, "created_at"))
        for name, owner, created_at in queryset.values_list("name", "owner__username", created)[:OFFERED]
    ]
    return offers + [LanguageModelOffer(name, BASE_MODEL_OWNER) for name in base_model_names(models)]
