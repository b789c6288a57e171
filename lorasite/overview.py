"""What the overview shows: first steps, runs, what needs a look, models to try, and the state of the installation."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Exists, F, OuterRef, Q, Subquery
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Coalesce
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.models import User
from accounts.permissions import visible, without_removed
from audit.models import Entry
from datasets_app.models import Dataset, Finding, Version
from datasets_app.report_page import FINDINGS, tab_address
from experiments.models import Experiment, ModelVersion, RegisteredModel
from experiments.registry.selectors import models_for
from experiments.selectors import scores_so_far
from experiments.task_types import COMPARED, in_points
from monitoring import health
from training.models import Status, Task
from training.presets import sample_runs
from training.selectors import running_tasks, visible_tasks

SAMPLE = "tweets-en"
SHOWN = 8  # runs in each list
MODELS_SHOWN = 3
LATELY = timedelta(days=7)  # how long a run that failed or did not learn is shown
LARGE = ("experiment__config", "experiment__metrics", "facts", "notices")  # columns that no list shows


@dataclass(frozen=True)
class Step:
    """One of the first steps; `sentence` says how far it is, `actions` are pairs of words and address."""

    title: str | Promise
    done: bool
    sentence: str
    actions: list[tuple[str, str]]


def first_steps(user: User) -> list[Step]:
    """Return the four steps from data to a prediction; empty once all are done, and for those who cannot take them."""
    if not user.can_create:
        return []
    dataset = without_removed(Dataset.objects.filter(owner=user)).order_by("-created_at").first()
    statuses = set(Task.objects.filter(owner=user).order_by().values_list("status", flat=True).distinct())
    steps = [
        data_step(user, dataset, bool(statuses)),
        check_step(dataset, bool(statuses)),
        train_step(user, dataset, statuses),
        predict_step(user),
    ]
    return [] if all(step.done for step in steps) else steps


def data_step(user: User, dataset: Dataset | None, has_run: bool) -> Step:
    if dataset or has_run:
        return Step(_("Bring data"), True, dataset.name if dataset else "", [])
    actions = [(_("Add data"), reverse("datasets:new"))]
    if visible(user, Dataset.objects.filter(name=SAMPLE)).exists():
        actions.append((_("Take the sample"), reverse("datasets:detail", args=[SAMPLE])))
    return Step(_("Bring data"), False, _("A file with one text and one label per row, or the sample."), actions)


def check_step(dataset: Dataset | None, has_run: bool) -> Step:
    title = _("Check it")
    if dataset is None:
        sentence = "" if has_run else _("Duplicates, wrong labels and broken texts are found for you.")
        return Step(title, has_run, sentence, [])
    errors = dataset.latest.findings.filter(severity=Finding.Severity.ERROR).count()
    if not errors:
        return Step(title, True, _("Ready to train."), [])
    problems = ngettext("%(n)d problem must be fixed first.", "%(n)d problems must be fixed first.", errors)
    return Step(title, has_run, problems % {"n": errors}, [(_("Open the report"), dataset.get_absolute_url())])


def train_step(user: User, dataset: Dataset | None, statuses: set[str]) -> Step:
    if Status.SUCCESS in statuses:
        return Step(_("Train"), True, "", [])
    if statuses & {Status.PENDING, Status.STARTED}:
        return Step(_("Train"), False, _("In progress."), [(_("View runs"), reverse("experiments:list"))])
    address = reverse("training:new")
    if dataset:
        address += "?" + urlencode({"dataset": str(dataset.latest)})
    samples = [
        (str(run["title"]), f"{reverse('training:new')}?{urlencode({'preset': str(run['name'])})}")
        for run in sample_runs(user)
    ]
    actions = [(_("Train a model"), address), *samples]
    return Step(_("Train"), False, _("Good settings are filled in already."), actions)


def predict_step(user: User) -> Step:
    # `contains`, which no index serves: the index of the action would lead through everybody's predictions.
    predictions = Q(action__contains="model.predict") | Q(action__contains="model.generate")
    predicted = Entry.objects.filter(predictions, username=user.get_username()).exists()
    succeeded = Experiment.objects.filter(owner=user, task__status=Status.SUCCESS).order_by("-created_at")
    newest = without_removed(succeeded).only("task_type").first()
    page = "inference:chat" if newest and newest.is_language_model else "inference:predict"
    actions = [(_("Try the model"), reverse(page))] if newest else []
    return Step(_("Predict"), predicted, _("Ask your model about a text of your own."), actions)


@dataclass(frozen=True)
class ActiveRun:
    task: Task
    place: int  # in its queue, from 1; without meaning once the run has started


def active_runs(user: User) -> list[ActiveRun]:
    """Return the runs in progress, then the queued ones in their order."""
    ahead = Task.objects.filter(
        status=Status.PENDING, device_kind=OuterRef("device_kind"), created_at__lt=OuterRef("created_at")
    )
    counted = ahead.order_by().values("status").annotate(n=Count("pk")).values("n")
    tasks = running_tasks(user).defer(*LARGE).annotate(ahead=Coalesce(Subquery(counted), 0))
    return [ActiveRun(task, task.ahead + 1) for task in tasks.order_by("-status", "created_at")[:SHOWN]]


@dataclass(frozen=True)
class EndedRun:
    task: Task
    difference: str  # from the baseline, in words; empty without one in the metric of the score
    score_so_far: float | None  # at the best evaluation of a run without a result


def ended_runs(user: User) -> list[EndedRun]:
    """Return the runs that were submitted last and have ended.

    The ids are read first, by the index of the time: reading the baselines before sorting takes a tenth of a second with
    10,000 runs. Excluding the few statuses keeps the database from choosing the index of the status.
    """
    ended = visible_tasks(user).exclude(status__in=[Status.PENDING, Status.STARTED])
    ids = list(ended.order_by("-created_at").values_list("pk", flat=True)[:SHOWN])
    tasks = Task.objects.filter(pk__in=ids).select_related("experiment", "owner").defer(*LARGE)
    tasks_with_baseline = tasks.annotate(baseline=KeyTransform("baseline", "experiment__metrics"))
    ended_tasks = list(tasks_with_baseline.order_by("-created_at"))
    so_far = scores_so_far([task.experiment for task in ended_tasks])
    return [
        EndedRun(task, difference_from_baseline(task.experiment, task.baseline or {}), so_far.get(task.experiment.pk))
        for task in ended_tasks
    ]


def difference_from_baseline(experiment: Experiment, baseline: dict[str, Any]) -> str:
    """Return the difference in percentage points; empty without a baseline in the metric of the score."""
    metric, name = COMPARED[experiment.task_type]
    if metric != experiment.score_name or baseline.get(name) is None or experiment.score is None:
        return ""
    return in_points(experiment.score - baseline[name])


@dataclass(frozen=True)
class Attention:
    """Something that needs a look."""

    level: str  # of its badge: error or warning
    word: str
    name: str
    href: str  # empty for people who could not do anything there
    sentence: str = ""


def attention(user: User) -> list[Attention]:
    """Return what the person can do something about: an own run that failed or did not learn, own data, the disk."""
    if not user.can_create:
        return []
    return [*full_disks(user), *unserved_queues(user), *runs_to_look_at(user), *data_to_look_at(user)]


def full_disks(user: User) -> Iterable[Attention]:
    for disk in health.disks():
        if disk.state == "ok" or (disk.state == "warning" and not user.is_admin):
            continue
        word = _("Disk full") if disk.state == "error" else _("Disk nearly full")
        sentence = _("%(free)s of %(all)s are free.") % {
            "free": filesizeformat(disk.free),
            "all": filesizeformat(disk.size),
        }
        if user.is_admin:
            yield Attention(disk.state, word, disk.place, reverse("monitoring:system"), sentence)
        else:
            yield Attention(disk.state, word, "", "", f"{sentence} {_('Tell an administrator.')}")


def unserved_queues(user: User) -> Iterable[Attention]:
    if not health.living_workers().exists():
        href = reverse("monitoring:system") if user.is_admin else ""
        yield Attention("error", _("No worker"), "", href, _("Runs wait until a worker is started."))


def runs_to_look_at(user: User) -> Iterable[Attention]:
    since = timezone.now() - LATELY
    failed = Task.objects.filter(owner=user, status=Status.FAILURE, created_at__gte=since).select_related("experiment")
    for task in without_removed(failed).defer(*LARGE).order_by("-created_at")[:3]:
        href = reverse("training:run", args=[task.pk])
        yield Attention(
            "error", _("failed"), task.experiment.name, href, (task.explained_error or {}).get("message", "")
        )
    unlearned = Experiment.objects.filter(owner=user, learned=False, created_at__gte=since).select_related("task")
    for experiment in without_removed(unlearned).defer("config", "metrics").order_by("-created_at")[:3]:
        href = reverse("training:run", args=[experiment.task.pk])
        yield Attention("warning", _("did not learn"), experiment.name, href)


def data_to_look_at(user: User) -> Iterable[Attention]:
    """Yield own datasets whose newest version has errors, or has warnings and was never trained on."""
    newest = Version.objects.filter(dataset=OuterRef("dataset")).order_by("-number").values("number")[:1]
    versions = Version.objects.filter(dataset__owner=user, number=Subquery(newest)).select_related("dataset")
    severity = Finding.Severity
    versions = versions.annotate(
        errors=Count("findings", filter=Q(findings__severity=severity.ERROR), distinct=True),
        warnings=Count("findings", filter=Q(findings__severity=severity.WARNING), distinct=True),
    ).filter(Q(errors__gt=0) | Q(~Exists(Experiment.objects.filter(version=OuterRef("pk"))), warnings__gt=0))
    for version in versions.only("number", "dataset__name").order_by("-created_at")[:3]:
        href = tab_address(version, FINDINGS)
        if version.errors:
            word = ngettext("%(n)d error", "%(n)d errors", version.errors) % {"n": version.errors}
            yield Attention("error", word, version.dataset.name, href)
        else:
            word = ngettext("%(n)d warning", "%(n)d warnings", version.warnings) % {"n": version.warnings}
            yield Attention("warning", word, version.dataset.name, href)


@dataclass(frozen=True)
class ModelCard:
    """A model with a box to ask it; `reference` is the name that a prediction gives: name@champion, or name."""

    reference: str
    model: RegisteredModel
    version: ModelVersion
    is_champion: bool
    reads_pairs: bool


def models_to_try(user: User) -> list[ModelCard]:
    """Return the newest champions; the newest models if nobody has chosen a champion."""
    models = models_for(user).order_by().values("pk")
    pair_column = KeyTransform("text_pair_column", KeyTransform("data", "config"))
    versions = ModelVersion.objects.select_related("model").annotate(pair=pair_column)
    versions = versions.defer("config", "metrics", "card", "limits").order_by("-created_at")
    champions = versions.filter(aliases__name="champion", model__in=models)[:MODELS_SHOWN]
    cards = [
        ModelCard(f"{version.model.name}@champion", version.model, version, True, bool(version.pair))
        for version in champions
    ]
    if cards:
        return cards
    newest = versions.filter(model__latest=F("pk"), model__in=models)[:MODELS_SHOWN]
    return [ModelCard(version.model.name, version.model, version, False, bool(version.pair)) for version in newest]


def installation(user: User) -> dict[str, Any]:
    """Return what administrators look at first; empty for others."""
    if not user.is_admin:
        return {}
    people = User.objects.filter(is_active=True)
    return {
        "workers": health.living_workers().count(),
        "queued": Task.objects.filter(status=Status.PENDING).count(),
        "people": people.count(),
        "active": people.filter(last_login__gte=timezone.now() - LATELY).count(),
        "disks": health.disks(),
    }
