"""What a run that is about to be registered is compared with: the version that people use now."""

from dataclasses import dataclass

from django.db.models import QuerySet

from accounts.models import User
from accounts.permissions import visible
from engine.task_types import LOWER_IS_BETTER

from ..evaluation_sets import share_evaluation_rows
from ..models import Experiment, ModelVersion, RegisteredModel

PREFERRED = ("champion", "production")  # aliases of the version that people mean by the name of a model
OFFERED = 100  # models in the list to choose from


@dataclass(frozen=True, slots=True)
class Rival:
    """A version in use beside a run. is_comparable: both were evaluated on the same rows; is_better: the version, there."""

    version: ModelVersion
    is_comparable: bool
    is_better: bool


def version_in_use(model: RegisteredModel) -> ModelVersion | None:
    """Return the champion of a model, or else its newest version."""
    aliases = {
        alias.name: alias.version
        for alias in model.aliases.filter(name__in=PREFERRED, version__in=model.versions.all()).select_related(
            "version"
        )
    }
    return next((aliases[name] for name in PREFERRED if name in aliases), model.latest)


def own_models(user: User, experiment: Experiment) -> QuerySet[RegisteredModel]:
    """Return the models that a run may become a version of, newest first: of its task type, and managed by the person."""
    models = RegisteredModel.objects.filter(task_type=experiment.task_type).order_by("-updated_at")
    return visible(user, models, manage=True)[:OFFERED]


def find_rival(model: RegisteredModel, experiment: Experiment) -> Rival | None:
    """Return what a run is compared with if it becomes the next version of a model."""
    version = version_in_use(model)
    if version is None:
        return None
    is_comparable = share_evaluation_rows([experiment, version])
    if not is_comparable or version.score is None or experiment.score is None:
        return Rival(version, is_comparable, is_better=False)
    gain = experiment.score - version.score
    return Rival(version, is_comparable, is_better=gain > 0 if version.score_name in LOWER_IS_BETTER else gain < 0)
