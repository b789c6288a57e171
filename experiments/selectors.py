"""Reads of experiments."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import get_managed, get_visible, visible
from accounts.quotas import counts
from web.errors import Invalid, NotFound

from .columns import COLUMNS, SORTABLE
from .models import Experiment

FILTERS = ("q", "status", "dataset", "base_model", "owner", "sort")  # what search() takes


def statuses() -> dict[str, Any]:
    """What a run's status can be, in words; training, which imports this app, is the one that knows."""
    task: Any = Experiment._meta.get_field("task").related_model
    return dict(task._meta.get_field("status").flatchoices)


def experiments_for(user: User) -> QuerySet[Experiment]:
    return visible(user, Experiment.objects.select_related("task", "owner"))


@counts("storage")
def kept_by(user: User) -> int:
    """Bytes of the results folders that a person owns."""
    return sum(entry["size"] for one in Experiment.objects.filter(owner=user).only("name") for entry in files(one))


def experiment_for(user: User, name: str) -> Experiment:
    return get_visible(user, Experiment.objects.select_related("task", "owner", "version__dataset"), name=name)


def managed_experiment(user: User, name: str) -> Experiment:
    return get_managed(user, Experiment.objects.select_related("task", "owner"), name=name)


def experiments_named(user: User, names: list[str]) -> list[Experiment]:
    """These experiments in this order; NotFound unless the person may see each."""
    found = {experiment.name: experiment for experiment in experiments_for(user).filter(name__in=names)}
    if len(found) != len(names):
        raise NotFound
    return [found[name] for name in names]


def choices(user: User) -> dict[str, list[str]]:
    """What the list can be filtered by."""
    seen = visible(user, Experiment.objects.order_by())
    fields = {"datasets": "dataset_name", "base_models": "base_model"}
    return {name: sorted(seen.values_list(field, flat=True).distinct()[:200]) for name, field in fields.items()}


def free_name(wanted: str) -> str:
    """`wanted`, or the first of wanted-2, wanted-3, … that no experiment has, in whatever case."""
    stem = re.sub(r"-\d+$", "", wanted)[:74]
    same = Experiment.objects.filter(name__istartswith=stem).values_list("name", flat=True)
    taken = {name.lower() for name in same}
    if wanted.lower() not in taken:
        return wanted
    return next(name for n in range(2, len(taken) + 3) if (name := f"{stem}-{n}").lower() not in taken)


def search(
    user: User,
    q: str = "",
    status: str = "",
    sort: str = "",
    dataset: str = "",
    base_model: str = "",
    owner: str = "",
) -> QuerySet[Experiment]:
    """The list of one person: words anywhere in name, dataset or base model; sorted by a column of SORTABLE.

    `owner` is empty, or "me" for one's own.
    """
    sort = sort or "-created"
    refuse_unknown(sort.removeprefix("-"), SORTABLE, "sort")
    refuse_unknown(status, ("", *statuses()), "status")
    refuse_unknown(owner, ("", "me"), "owner")
    column = SORTABLE[sort.removeprefix("-")]
    exact = {"task__status": status, "dataset_name": dataset, "base_model": base_model}
    found = experiments_for(user).defer("config", "metrics").filter(**{k: v for k, v in exact.items() if v})
    for word in q.split():
        found = found.filter(Q(name__icontains=word) | Q(dataset_name__icontains=word) | Q(base_model__icontains=word))
    if owner:
        found = found.filter(owner=user)
    empty_last = F(column).desc(nulls_last=True) if sort.startswith("-") else F(column).asc(nulls_last=True)
    return found.order_by(empty_last, "-pk" if sort.startswith("-") else "pk")  # one direction: an index serves it


def check_columns(keys: list[str]) -> None:
    for key in keys:
        refuse_unknown(key, [column.key for column in COLUMNS], "columns")


def refuse_unknown(value: str, allowed: Iterable[str], field: str) -> None:
    if value not in allowed:
        listed = ", ".join(name for name in allowed if name)
        raise Invalid(_("%(field)s is one of: %(listed)s.") % {"field": field, "listed": listed}, field=field)


def files(experiment: Experiment) -> list[dict[str, Any]]:
    """What lies in the results folder: path below it and size in bytes; drafts and links are left out."""
    folder = experiment.folder
    paths = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if not p.is_symlink() and p.is_file()]
    named = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    sizes = [(path, _size(folder / path)) for path in named]
    return [{"path": path.as_posix(), "size": size} for path, size in sizes if size is not None]


def _size(path: Path) -> int | None:
    """None for what a run that goes on has just dropped."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
