"""Reads of experiments."""

import re
from typing import Any

from django.db.models import Q, QuerySet

from accounts.errors import Invalid
from accounts.models import User
from accounts.permissions import get_visible, visible

from .models import Experiment

SORTABLE = {
    "name": "name",
    "created": "created_at",
    "accuracy": "accuracy",
    "macro_f1": "macro_f1",
    "loss": "eval_loss",
    "speed": "tokens_per_second",
    "duration": "runtime_s",
    "dataset": "dataset_name",
    "base_model": "base_model",
    "status": "task__status",
}


def experiments_for(user: User) -> QuerySet[Experiment]:
    return visible(user, Experiment.objects.select_related("task", "owner"))


def experiment_for(user: User, name: str) -> Experiment:
    return get_visible(user, Experiment.objects.select_related("task", "owner", "version__dataset"), name=name)


def free_name(wanted: str) -> str:
    """`wanted`, or the first of wanted-2, wanted-3, … that no experiment has."""
    stem = re.sub(r"-\d+$", "", wanted)[:74]
    taken = set(Experiment.objects.filter(name__startswith=stem).values_list("name", flat=True))
    if wanted not in taken:
        return wanted
    return next(name for n in range(2, len(taken) + 3) if (name := f"{stem}-{n}") not in taken)


def search(user: User, q: str = "", status: str = "", sort: str = "-created") -> QuerySet[Experiment]:
    """The list of one person: words anywhere in name, dataset or base model; sorted by a column of SORTABLE."""
    column = SORTABLE.get(sort.lstrip("-"))
    if column is None:
        raise Invalid(f"Sort by one of {', '.join(SORTABLE)}, with - in front for the other direction.", field="sort")
    found = experiments_for(user).defer("config", "metrics")
    for word in q.split():
        found = found.filter(Q(name__icontains=word) | Q(dataset_name__icontains=word) | Q(base_model__icontains=word))
    if status:
        found = found.filter(task__status=status)
    return found.order_by(f"-{column}" if sort.startswith("-") else column, "-pk")


def files(experiment: Experiment) -> list[dict[str, Any]]:
    """What lies in the results folder: path below it and size in bytes; drafts and links are left out."""
    folder = experiment.folder
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    paths = [p.relative_to(folder) for p in found]
    return [
        {"path": path.as_posix(), "size": (folder / path).stat().st_size}
        for path in paths
        if not any(part.startswith(".") for part in path.parts)
    ]
