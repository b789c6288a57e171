"""Models that can predict: registered ones by name, version and alias, and those of finished experiments."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from django.db.models import F, Prefetch, Q, QuerySet
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import visible
from experiments.models import Experiment, ModelVersion, RegisteredModel
from experiments.registry.rivals import PREFERRED
from experiments.registry.selectors import version_of
from experiments.task_types import WRITING
from web.errors import ConflictError, LorasiteError, NotFoundError

OFFERED = 100  # models in a list to choose from; others can be typed by name
M = TypeVar("M", Experiment, RegisteredModel)
Offers = list[tuple[str, float | None]]  # name and score
MOST_VERSIONS = 10  # of a model in the list; others can be typed as name@version
WRITES = Q(task_type__in=WRITING)
BEST_FIRST = (F("accuracy").desc(nulls_last=True), F("score").desc(nulls_last=True), "name")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can predict, and the version or experiment that it comes from."""

    name: str
    folder: Path
    accuracy: float | None
    source: Experiment | ModelVersion

    @classmethod
    def of(cls, source: Experiment | ModelVersion) -> "Model":
        folder = source.final_model if isinstance(source, Experiment) else source.folder
        return cls(str(source), folder, source.accuracy, source)


@dataclass(frozen=True, slots=True)
class VersionOffer:
    """A version of a registered model to choose, by alias ("tweets@champion") or by number ("tweets@2")."""

    name: str
    number: int
    score: float | None
    by_alias: bool


@dataclass(frozen=True, slots=True)
class Models:
    """The models that somebody may use. If a model and an experiment have the same name, it means the model."""

    registered: QuerySet[RegisteredModel]
    experiments: QuerySet[Experiment]
    write: bool = False  # offer language models alone, which have pages and addresses of their own, or all others
    default: str = ""  # answers requests that name no model; if empty, the best one does

    def of_kind(self, queryset: QuerySet[M]) -> QuerySet[M]:
        """Return the language models of a query if those are asked for, else the others."""
        return queryset.filter(WRITES) if self.write else queryset.exclude(WRITES)

    def named(self, name: str) -> Model:
        """Return the model for "name", "name@3" or "name@champion"; NotFound, or Conflict if its run is not done yet."""
        short, _at, which = name.partition("@")
        model = self.registered.filter(name=short).first()
        if model:
            return Model.of(version_of(model, which))
        experiment = self.experiments.filter(name=name).first()
        if experiment is None:
            raise NotFoundError(field="model")
        if not experiment.is_ready:
            message = _("This run has left no model yet. Wait until it is done, or choose another.")
            raise ConflictError(message, field="model")
        return Model.of(experiment)

    def best(self) -> Model | None:
        """Return the default model, or else the most accurate of all, each judged on its own data.

        Programs that name no model expect one label, so a model of another task type is the best only if there is no other.
        """
        if self.default:
            try:
                return self.named(self.default)
            except LorasiteError:
                return None
        candidates = []
        registered = self.of_kind(self.registered).order_by(*BEST_FIRST).first()
        if registered:
            candidates.append(Model.of(version_of(registered)))
        experiment = with_model(self.of_kind(self.experiments)).first()
        if experiment:
            candidates.append(Model.of(experiment))
        # A model whose accuracy is not known is better than none.
        return max(candidates, key=lambda model: -1.0 if model.accuracy is None else model.accuracy, default=None)

    def offered(self) -> tuple[Offers, Offers]:
        """Return the models of this kind to choose from: registered ones, newest first, and experiments, best first."""
        registered = self.of_kind(self.registered).order_by("-updated_at").values_list("name", "score")[:OFFERED]
        experiments = with_model(self.of_kind(self.experiments)).values_list("name", "score")[:OFFERED]
        return list(registered), list(experiments)

    def offered_versions(self) -> dict[str, list[VersionOffer]]:
        """Return the registered models of this kind, newest first, each with its aliases and then its newest versions."""
        versions = ModelVersion.objects.only("model_id", "number", "score").prefetch_related("aliases")
        registered = self.of_kind(self.registered).order_by("-updated_at")
        models = registered.prefetch_related(Prefetch("versions", versions))
        offers = {}
        for model in models[:OFFERED]:
            all_versions = model.versions.all()
            aliased = [
                VersionOffer(f"{model.name}@{alias.name}", version.number, version.score, by_alias=True)
                for version in all_versions
                for alias in version.aliases.all()
            ]
            numbered = [
                VersionOffer(f"{model.name}@{version.number}", version.number, version.score, by_alias=False)
                for version in all_versions[:MOST_VERSIONS]
            ]
            offers[model.name] = sorted(aliased, key=lambda offer: offer.name) + numbered
        return offers

    def names(self) -> list[str]:
        registered, experiments = self.offered()
        return sorted({name for name, _score in [*registered, *experiments]})


def preferred_offer(offers: list[VersionOffer]) -> str:
    """Return the name of the champion among the versions of a model, or else of the newest one."""
    names = [offer.name for offer in offers]
    preferred = [name for alias in PREFERRED for name in names if name.endswith(f"@{alias}")]
    newest = next(offer.name for offer in offers if not offer.by_alias)
    return preferred[0] if preferred else newest


def models_for(user: User) -> Models:
    experiments = visible(user, Experiment.objects.select_related("version"))
    return Models(visible(user, RegisteredModel.objects.all()), experiments)


def all_models() -> Models:
    """Return the models of everybody, for a server without accounts."""
    return Models(RegisteredModel.objects.all(), Experiment.objects.select_related("version"))


def only(name: str) -> Models:
    """Return one experiment, or one registered model with all its versions."""
    short = name.partition("@")[0]
    return Models(RegisteredModel.objects.filter(name=short), Experiment.objects.filter(name=name), default=name)


def with_model(experiments: QuerySet[Experiment]) -> QuerySet[Experiment]:
    """Return those whose run has succeeded, the best first."""
    has_model = Q(accuracy__isnull=False) | Q(eval_loss__isnull=False)  # as `Experiment.is_ready`
    return experiments.filter(has_model).order_by(*BEST_FIRST)
