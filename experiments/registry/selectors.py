"""Reads of registered models."""

from typing import Any

from django.db.models import F, Q, QuerySet, Sum
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import get_managed, get_visible, visible
from accounts.quotas import counts
from web.errors import NotFound

from ..models import ModelVersion, RegisteredModel
from ..selectors import refuse_unknown
from .labels import label_set

FILTERS = ("q", "language", "base_model", "labels", "owner", "sort")  # what search() takes
SORTABLE = {
    "name": "name", "updated": "updated_at", "accuracy": "accuracy", "macro_f1": "macro_f1", "language": "language",
    "base_model": "base_model", "owner": "owner__username",
}  # fmt: skip


@counts("storage")
def kept_by(user: User) -> int:
    """Bytes of a person's models; while the run is there, its files are the same ones and counted with it."""
    found = ModelVersion.objects.filter(model__owner=user, experiment=None)
    return found.aggregate(all=Sum("size"))["all"] or 0


def models_for(user: User) -> QuerySet[RegisteredModel]:
    return visible(user, RegisteredModel.objects.select_related("owner", "latest"))


def model_for(user: User, name: str) -> RegisteredModel:
    return get_visible(user, RegisteredModel.objects.select_related("owner", "latest"), name=name)


def managed_model(user: User, name: str) -> RegisteredModel:
    return get_managed(user, RegisteredModel.objects.select_related("owner", "latest"), name=name)


def version_for(user: User, reference: str) -> ModelVersion:
    """The version that "name" (the newest), "name@3" or "name@champion" means; NotFound, also to a stranger."""
    name, _at, which = reference.partition("@")
    return version_of(model_for(user, name), which)


def version_of(model: RegisteredModel, which: str = "") -> ModelVersion:
    """A model's version by number or alias; the newest where nothing is said."""
    versions = model.versions.select_related("model__owner", "dataset_version__dataset", "experiment", "author")
    if which:
        versions = versions.filter(Q(number=int(which)) if _is_number(which) else Q(aliases__name=which))
    found = versions.first()
    if found is None:
        numbers = ", ".join(str(n) for n in model.versions.values_list("number", flat=True)[:20])
        message = _("The model “%(name)s” has no version “%(which)s”; it has %(numbers)s.")
        raise NotFound(message % {"name": model.name, "which": which[:40], "numbers": numbers})
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def search(
    user: User, q: str = "", language: str = "", base_model: str = "", labels: str = "", owner: str = "", sort: str = ""
) -> QuerySet[RegisteredModel]:
    """The models of one person: words anywhere in name, summary, labels, data, base model or language.

    `labels` is a set with commas, in any order and case; `owner` is empty, or "me" for one's own.
    """
    sort = sort or "-updated"
    refuse_unknown(sort.removeprefix("-"), SORTABLE, "sort")
    refuse_unknown(owner, ("", "me"), "owner")
    exact = {"language": language, "base_model": base_model, "owner": user if owner else None}
    found = models_for(user).defer("latest__config", "latest__metrics", "latest__card")
    found = found.filter(**{name: value for name, value in exact.items() if value})
    if labels.strip(", "):
        found = found.filter(label_set=label_set(name for name in labels.split(",") if name.strip()))
    for word in q.lower().split():
        found = found.filter(words__contains=word)
    column = F(SORTABLE[sort.removeprefix("-")])
    order = column.desc(nulls_last=True) if sort.startswith("-") else column.asc(nulls_last=True)
    return found.order_by(order, "-pk" if sort.startswith("-") else "pk")  # one direction: an index serves it


def choices(user: User) -> dict[str, list[str]]:
    """What the list can be filtered by."""
    seen = visible(user, RegisteredModel.objects.order_by())
    fields = {"languages": "language", "base_models": "base_model"}
    return {n: sorted(filter(None, seen.values_list(f, flat=True).distinct()[:200])) for n, f in fields.items()}


def fitting(user: User, labels: list[str]) -> QuerySet[RegisteredModel]:
    """The models that tell just these labels apart, the most accurate on their own data first."""
    return models_for(user).filter(label_set=label_set(labels)).order_by(F("accuracy").desc(nulls_last=True), "pk")


def aliases(model: RegisteredModel) -> dict[str, int]:
    """Number of the version that each alias means."""
    return dict(model.aliases.values_list("name", "version__number"))


def shown_limits(version: ModelVersion) -> list[dict[str, Any]]:
    """The findings in the reader's language."""
    from datasets_app import wording

    known = [limit for limit in version.limits if limit["code"] in wording.TITLES]
    return [limit | {"sentence": wording.sentence(limit["code"], limit["count"])} for limit in known]
