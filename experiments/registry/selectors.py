"""Queries: which models are registered, and which version a name means."""

from django.db.models import F, QuerySet, Sum
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import get_visible, visible
from accounts.quotas import counts_usage
from engine.names import name_key
from lists.queries import search_words, sort_rows
from lists.selectors import of_owner, tag_choices, with_tag
from web.errors import NotFoundError
from web.requests import parse_whole_number

from ..models import ModelVersion, RegisteredModel
from ..task_types import USUAL
from .columns import NEWEST_FIRST, SORTABLE
from .labels import label_set

FILTERS = ("q", "language", "base_model", "labels", "tag", "owner", "sort")  # what search() takes


@counts_usage("storage")
def stored_bytes(user: User) -> int:
    """Return the size of a person's models whose experiment is deleted; until then the files are hard links to its own."""
    versions = ModelVersion.objects.filter(model__owner=user, experiment=None)
    return versions.aggregate(total=Sum("size"))["total"] or 0


def models_for(user: User) -> QuerySet[RegisteredModel]:
    return visible(user, RegisteredModel.objects.select_related("owner", "latest"))


def model_for(user: User, name: str, *, manage: bool = False) -> RegisteredModel:
    """Return the model with its owner and newest version; with `manage`, only to those who may change it."""
    models = RegisteredModel.objects.select_related("owner", "latest")
    return get_visible(user, models, manage=manage, name=name)


def version_for(user: User, reference: str, *, manage: bool = False) -> ModelVersion:
    """Return the version that "name" (the newest), "name@3" or "name@champion" means.

    Raise NotFoundError if there is none or if the person may not see it; with `manage`, raise NotAllowedError to somebody
    who may see it but not change it.
    """
    name, _at, which = reference.partition("@")
    return version_of(model_for(user, name, manage=manage), which)


def version_of(model: RegisteredModel, which: str = "") -> ModelVersion:
    """Return a model's version by number or alias, or the newest if `which` is empty."""
    versions = model.versions.select_related("model__owner", "dataset_version__dataset", "experiment", "author")
    number = parse_whole_number(which)
    if number is not None and len(which) < 10:  # more digits do not fit the column
        versions = versions.filter(number=number)
    elif which:
        versions = versions.filter(aliases__name=which)
    version = versions.first()
    if version is None:
        numbers = ", ".join(str(n) for n in model.versions.values_list("number", flat=True)[:20])
        message = _("The model “%(name)s” has no version “%(which)s”; it has %(numbers)s.")
        raise NotFoundError(message % {"name": model.name, "which": which[:40], "numbers": numbers})
    return version


def search(
    user: User,
    q: str = "",
    language: str = "",
    base_model: str = "",
    labels: str = "",
    tag: str = "",
    owner: str = "",
    sort: str = "",
) -> QuerySet[RegisteredModel]:
    """Return the models that the person may see, filtered and sorted by a column of SORTABLE ("-accuracy": descending).

    `q` is words that all occur in name, summary, labels, data, base model or language; `labels` is a set of labels
    separated by commas, in any order and case; `owner` is empty, or "me" for the person's own.
    """
    # These can be large, and no list shows them.
    models = models_for(user).defer("latest__config", "latest__metrics", "latest__card").prefetch_related("tags")
    if language:
        models = models.filter(language=language)
    if base_model:
        models = models.filter(base_model=base_model)
    if labels.strip(", "):
        models = models.filter(label_set=label_set(name for name in labels.split(",") if name.strip()))
    for word in search_words(q):
        models = models.filter(words__contains=name_key(word))
    return sort_rows(of_owner(with_tag(models, tag), user, owner), sort or NEWEST_FIRST, SORTABLE)


def choices(user: User) -> dict[str, list[str]]:
    """Return the values that the list can be filtered by: language, base model and tag, at most 200 of each."""
    # Without the default order, whose column would make every row distinct.
    models = visible(user, RegisteredModel.objects.order_by())
    languages = models.values_list("language", flat=True).distinct()[:200]
    base_models = models.values_list("base_model", flat=True).distinct()[:200]
    return {
        "languages": sorted(filter(None, languages)),
        "base_models": sorted(filter(None, base_models)),
        "tag_names": tag_choices(user, RegisteredModel),
    }


def fitting(user: User, labels: list[str], task_type: str = USUAL) -> QuerySet[RegisteredModel]:
    """Return the models of this task type with exactly these labels, the best on their own data first."""
    models = models_for(user).filter(task_type=task_type, label_set=label_set(labels))
    return models.order_by(F("score").desc(nulls_last=True), "pk")
