"""Queries: which experiments there are, and which files they have left."""

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.db.models import Q, QuerySet

from accounts.models import User
from accounts.permissions import get_visible, visible
from accounts.quotas import counts_usage
from engine.names import name_key, normalise_name, shorten_name
from lists.queries import require_one_of, search_words, sort_rows
from lists.selectors import of_owner, tag_choices, with_tag
from web.errors import NotFoundError
from web.names import named_alike

from .columns import COLUMNS, DEFAULT, NEWEST_FIRST, SORTABLE, Column
from .curves import Scores, find_best
from .models import Experiment
from .task_types import TASK_TYPES

FILTERS = ("q", "status", "learned", "dataset", "base_model", "tag", "owner", "sort")  # what search() takes


def statuses() -> dict[str, Any]:
    """Return the names of a run's statuses. They belong to training, which imports this app, hence the detour."""
    task: Any = Experiment._meta.get_field("task").related_model
    return dict(task._meta.get_field("status").flatchoices)


def experiments_for(user: User) -> QuerySet[Experiment]:
    return visible(user, Experiment.objects.select_related("task", "owner"))


@counts_usage("storage")
def stored_bytes(user: User) -> int:
    """Return the bytes of the results folders that a person owns.

    They are read from the disk and not from the database, because a run in progress adds and drops checkpoints.
    """
    total = 0
    for experiment in Experiment.objects.filter(owner=user).only("name", "folder_name"):
        total += sum(entry["size"] for entry in files(experiment))
    return total


def get_experiment(user: User, name: str, *, manage: bool = False) -> Experiment:
    """Return the experiment with its run and data; with `manage`, only to those who may change and delete it."""
    experiments = Experiment.objects.select_related("task", "owner", "version__dataset")
    return get_visible(user, experiments, manage=manage, name=name)


def experiments_named(user: User, names: list[str]) -> list[Experiment]:
    """Return these experiments in this order; `names` holds each name once.

    Raise NotFoundError unless the person may see all of them.
    """
    names = list(dict.fromkeys(map(normalise_name, names)))
    experiments = experiments_for(user).filter(name__in=names)
    by_name = {experiment.name: experiment for experiment in experiments}
    if len(by_name) != len(names):
        raise NotFoundError
    return [by_name[name] for name in names]


def choices(user: User) -> dict[str, list[str]]:
    """Return the values that the list can be filtered by: dataset, base model and tag, at most 200 of each."""
    # Without the default order, whose column would make every row distinct.
    experiments = visible(user, Experiment.objects.order_by())
    datasets = experiments.values_list("dataset_name", flat=True).distinct()[:200]
    base_models = experiments.values_list("base_model", flat=True).distinct()[:200]
    return {
        "datasets": sorted(datasets),
        "base_models": sorted(base_models),
        "tag_names": tag_choices(user, Experiment),
    }


def free_name(wanted: str) -> str:
    """Return `wanted`, or one of wanted-2, wanted-3, … that no experiment has, nor one that counts as the same.

    Its number follows one that is taken. It is found in a few short queries, as to read 10,000 names takes 30 ms.
    """
    name = shorten_name(wanted)
    if not is_taken(name):
        return name
    stem = shorten_name(re.sub(r"-[0-9]+$", "", wanted), room=6)  # for the number
    taken, free = 1, 2
    while is_taken(f"{stem}-{free}"):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        if is_taken(f"{stem}-{middle}"):
            taken = middle
        else:
            free = middle
    return f"{stem}-{free}"


def is_taken(name: str) -> bool:
    """Return whether an experiment has this name, or one that counts as the same."""
    return Experiment.objects.filter(named_alike(name)).exists()


def search(
    user: User,
    q: str = "",
    status: str = "",
    sort: str = "",
    dataset: str = "",
    base_model: str = "",
    tag: str = "",
    owner: str = "",
    learned: str = "",
) -> QuerySet[Experiment]:
    """Return the experiments that the person may see, filtered and sorted by a column of SORTABLE ("-accuracy": descending).

    `q` is words that all occur in the name, the dataset or the base model; `owner` is empty, or "me" for the person's own.
    `learned` is empty, "true" or "false".
    """
    require_one_of(status, ("", *statuses()), "status")
    require_one_of(learned, ("", "true", "false"), "learned")
    # They can be large, and no list shows them. The configuration tells which runs can be compared.
    experiments = experiments_for(user).defer("metrics").prefetch_related("tags")
    dataset = normalise_name(dataset)
    for field, value in (("task__status", status), ("dataset_name", dataset), ("base_model", base_model)):
        if value:
            experiments = experiments.filter(**{field: value})
    for word in search_words(q):
        matches = Q(name_key__contains=name_key(word)) | Q(name__icontains=word)
        experiments = experiments.filter(matches | Q(dataset_name__icontains=word) | Q(base_model__icontains=word))
    if learned:
        experiments = experiments.filter(learned=learned == "true")
    return sort_rows(of_owner(with_tag(experiments, tag), user, owner), sort or NEWEST_FIRST, SORTABLE)


def select_columns(keys: list[str]) -> list[Column]:
    """Return the columns of these keys in their fixed order, or the default ones if no key is given.

    Raise InvalidError for a key that no column has.
    """
    allowed = [column.key for column in COLUMNS]
    for key in keys:
        require_one_of(key, allowed, "columns")
    selected = keys or DEFAULT
    return [column for column in COLUMNS if column.key in selected]


def files(experiment: Experiment) -> list[dict[str, Any]]:
    """Return path (below the results folder) and size in bytes of each file; drafts and links are left out."""
    folder = experiment.folder
    entries: list[dict[str, Any]] = []
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        if file.is_symlink() or not file.is_file() or any(part.startswith(".") for part in path.parts):
            continue
        with suppress(FileNotFoundError):  # a run in progress drops its older checkpoints
            entries.append({"path": path.as_posix(), "size": file.stat().st_size})
    return entries


def scores_so_far(experiments: Iterable[Experiment]) -> dict[int, float]:
    """Return the score at the best evaluation of each run that has left no result, by the key of its experiment."""
    without_result = {experiment.pk: experiment for experiment in experiments if not experiment.is_ready}
    # The points belong to training, which imports this app, so they are found by the names of the relations.
    points = Experiment.objects.filter(pk__in=without_result, task__points__eval_loss__isnull=False).order_by()
    evaluations: dict[int, list[Scores]] = defaultdict(list)
    for key, step, accuracy, scores in points.values_list(
        "pk", "task__points__step", "task__points__accuracy", "task__points__scores"
    ):
        metrics = scores or {"accuracy": accuracy}  # older rows have no scores
        if TASK_TYPES[without_result[key].task_type].curves[0] in metrics:
            evaluations[key].append(Scores(step, metrics))
    best = {key: find_best(without_result[key].task_type, scores) for key, scores in evaluations.items()}
    reached = {key: scores.metrics.get(without_result[key].score_name) for key, scores in best.items()}
    return {key: score for key, score in reached.items() if score is not None}
