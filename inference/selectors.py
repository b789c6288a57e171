"""Which models there are to ask: registered ones by name, version and alias, and what finished experiments have left."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db.models import F, QuerySet
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import visible
from experiments.models import Experiment, ModelVersion, RegisteredModel
from experiments.registry.selectors import version_of
from web.errors import Conflict, LorasiteError, NotFound

OFFERED = 100  # in a list to choose from; any other model is asked by its name


@dataclass(frozen=True, slots=True)
class Model:
    """Something that answers. `source` is the version or the experiment that it is."""

    name: str
    folder: Path
    accuracy: float | None
    source: Any

    @classmethod
    def of(cls, source: Experiment | ModelVersion) -> "Model":
        folder = source.final_model if isinstance(source, Experiment) else source.folder
        return cls(str(source), folder, source.accuracy, source)

    @property
    def language(self) -> str:
        """That of the texts that it has learnt from, where it is known."""
        return getattr(self.source, "language", "")


@dataclass(frozen=True, slots=True)
class Models:
    """The models that somebody may ask. Where both have a name, the registered model is meant."""

    registered: QuerySet[RegisteredModel]
    experiments: QuerySet[Experiment]
    usual: str = ""  # who answers where nobody is named; empty: the best

    def named(self, name: str) -> Model:
        """By "name", "name@3", "name@champion"; NotFound, or Conflict where the experiment has left no model yet."""
        if "\x00" in name:  # PostgreSQL would not even look
            raise NotFound(field="model")
        short, _at, which = name.partition("@")
        if found := self.registered.filter(name=short).first():
            return Model.of(version_of(found, which))
        experiment = self.experiments.filter(name=name).first()
        if experiment is None:
            raise NotFound(field="model")
        if not experiment.is_ready:
            raise Conflict(
                _("This run has left no model yet. Wait until it is done, or choose another."), field="model"
            )
        return Model.of(experiment)

    def best(self) -> Model | None:
        """The usual one, or the most accurate of all, each on its own data."""
        if self.usual:
            return self._usual()
        return max(filter(None, (self._best_version(), self._best_experiment())), key=_accuracy, default=None)

    def _usual(self) -> Model | None:
        try:
            return self.named(self.usual)
        except LorasiteError:
            return None

    def _best_version(self) -> Model | None:
        found = self.registered.order_by(F("accuracy").desc(nulls_last=True), "name").first()
        return Model.of(version_of(found)) if found else None

    def _best_experiment(self) -> Model | None:
        found = with_model(self.experiments).first()
        return Model.of(found) if found else None

    def offered(self) -> tuple[list[tuple[str, float | None]], list[tuple[str, float | None]]]:
        """Names and accuracies to choose from: registered models, newest first, and experiments, best first."""
        registered = self.registered.order_by("-updated_at").values_list("name", "accuracy")[:OFFERED]
        return list(registered), list(with_model(self.experiments).values_list("name", "accuracy")[:OFFERED])

    def names(self) -> list[str]:
        return sorted({name for offered in self.offered() for name, _accuracy in offered})


def models_for(user: User) -> Models:
    return Models(
        visible(user, RegisteredModel.objects.all()), visible(user, Experiment.objects.select_related("version"))
    )


def all_models() -> Models:
    """For a server without accounts."""
    return Models(RegisteredModel.objects.all(), Experiment.objects.select_related("version"))


def only(name: str) -> Models:
    """One experiment, or one registered model with its versions."""
    short = name.partition("@")[0]
    return Models(RegisteredModel.objects.filter(name=short), Experiment.objects.filter(name=name), name)


def with_model(experiments: QuerySet[Experiment]) -> QuerySet[Experiment]:
    """Those whose run has left a model, the best first."""
    return experiments.filter(accuracy__isnull=False).order_by("-accuracy", "name")


def _accuracy(model: Model) -> float:
    return model.accuracy if model.accuracy is not None else -1.0
