"""The review page: search for wrong labels, decide on each suspect, make the corrected version, compare the runs."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.http import SignedInRequest
from accounts.permissions import can_manage
from datasets_app import selectors, services
from datasets_app.review import improvement
from datasets_app.versions import changes
from web.errors import ConflictError, NotFoundError
from web.requests import parse_whole_number
from work.models import Status

from .change_views import managed_version, redirect_to_result
from .models import DataTask, Suspect, Version

MOST_KEYS = 9  # labels with a keyboard shortcut: 1 to 9


@login_required
@require_safe
@vary_on_headers("HX-Request")
def review(request: SignedInRequest, name: str) -> HttpResponse:
    dataset = selectors.dataset_for(request.user, name)
    version = selectors.version_of(dataset, request.GET.get("version"))
    after = parse_whole_number(request.GET.get("after", "")) or 0
    return _render_review(request, version, selectors.next_suspect(version, after))


def _render_review(request: SignedInRequest, version: Version, suspect: Suspect | None) -> HttpResponse:
    dataset = version.dataset
    searches = version.tasks.filter(kind=DataTask.Kind.NOISE)
    context = {
        "dataset": dataset,
        "version": version,
        "suspect": suspect,
        "label_keys": label_keys(version),
        "counts": selectors.review_counts(version),
        "searched": searches.filter(result__isnull=False).first(),
        "running": searches.filter(status__in=[Status.PENDING, Status.STARTED]).first(),
        "manages": can_manage(request.user, dataset),
        "last": version.suspects.filter(decided_by=request.user).order_by("-rank").first(),
        "gain": improvement.compare_runs(request.user, version),
    }
    name = "datasets_app/noise.html" + ("#card" if request.htmx else "")
    return render(request, name, context)


def label_keys(version: Version) -> list[tuple[str, str]]:
    """Return all labels in one order, each with its shortcut, so that a key means the same label at every suspect."""
    return [
        (label, str(number) if number <= MOST_KEYS else "") for number, label in enumerate(sorted(version.labels), 1)
    ]


@login_required
@require_POST
def search(request: SignedInRequest, name: str) -> HttpResponse:
    """Search for wrong labels by a task; its page shows the progress and links back here."""
    version = managed_version(request, name)
    task = services.submit(user=request.user, kind=DataTask.Kind.NOISE, name=name, version=version)
    return redirect("datasets:task", task.pk)


@login_required
@require_POST
@vary_on_headers("HX-Request")
def decide(request: SignedInRequest, name: str) -> HttpResponse:
    """Store the decision about one suspect and show the next one."""
    version = managed_version(request, name)
    suspect = version.suspects.filter(rank=parse_whole_number(request.POST.get("rank", "")) or 0).first()
    if suspect is None:
        raise NotFoundError
    undo = "undo" in request.POST
    if "skip" not in request.POST:
        if undo:
            label = None
        elif "drop" in request.POST:
            label = ""
        else:
            label = request.POST.get("label", "")
        services.decide(user=request.user, suspect=suspect, label=label)
    if request.htmx:
        return _render_review(request, version, suspect if undo else selectors.next_suspect(version, suspect.rank))
    return redirect(f"{reverse('datasets:noise', args=[name])}?version={version.number}&after={suspect.rank}")


@login_required
@require_POST
def apply(request: SignedInRequest, name: str) -> HttpResponse:
    """Make the next version from the decisions, and open it."""
    version = managed_version(request, name)
    try:
        made = changes.from_decisions(user=request.user, version=version)
    except ConflictError as error:
        messages.error(request, str(error.message))
        return redirect(f"{reverse('datasets:noise', args=[name])}?version={version.number}")
    return redirect_to_result(request, made)
