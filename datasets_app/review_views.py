"""From suspicion to gain in one page: look for wrong labels, confirm or correct each, make a version, train again, compare."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.permissions import visible
from datasets_app import selectors, services
from datasets_app.review import improvement
from datasets_app.versions import changes
from web.errors import Conflict, NotFound
from web.requests import whole_number

from .change_views import managed_version, shown
from .models import Dataset, DataTask, Suspect, Version
from .views import SignedIn

MOST_KEYS = 9  # labels that have a key of their own: 1 to 9


@login_required
@require_safe
@vary_on_headers("HX-Request")
def review(request: SignedIn, name: str) -> HttpResponse:
    dataset = selectors.dataset_for(request.user, name)
    version = selectors.version_of(dataset, request.GET.get("version"))
    after = whole_number(request.GET.get("after", "")) or 0
    return _page(request, version, selectors.next_suspect(version, after))


def _page(request: SignedIn, version: Version, suspect: Suspect | None) -> HttpResponse:
    dataset = version.dataset
    context = {
        "dataset": dataset,
        "version": version,
        "suspect": suspect,
        "choices": choices(version, suspect) if suspect else [],
        "counts": selectors.review_counts(version),
        "searched": version.tasks.filter(kind=DataTask.Kind.NOISE, result__isnull=False).first(),
        "running": selectors.running_on(version, DataTask.Kind.NOISE),
        "manages": visible(request.user, Dataset.objects.filter(pk=dataset.pk), manage=True).exists(),
        "last": version.suspects.filter(decided_by=request.user).order_by("-rank").first(),
        "gain": improvement.of(request.user, version),
    }
    name = "datasets_app/noise.html" + ("#card" if request.htmx else "")
    return render(request, name, context)


def choices(version: Version, suspect: Suspect) -> list[dict[str, Any]]:
    """The labels that a person can give, the predicted one first, each with its key."""
    names = list(dict.fromkeys([suspect.predicted, suspect.label, *sorted(version.labels)]))
    keys = [str(n) for n in range(1, MOST_KEYS + 1)]
    return [
        {
            "label": label,
            "key": keys[i] if i < MOST_KEYS else "",
            "given": label == suspect.label,
            "predicted": label == suspect.predicted,
        }
        for i, label in enumerate(names)
    ]


@login_required
@require_POST
def search(request: SignedIn, name: str) -> HttpResponse:
    """Look for wrong labels; the task's page shows how far it is and leads back here."""
    version = managed_version(request, name)
    task = services.submit(user=request.user, kind=DataTask.Kind.NOISE, name=name, version=version)
    return redirect("datasets:task", task.pk)


@login_required
@require_POST
@vary_on_headers("HX-Request")
def decide(request: SignedIn, name: str) -> HttpResponse:
    """What the person says to one suspect; the next one is shown."""
    version = managed_version(request, name)
    suspect = version.suspects.filter(rank=whole_number(request.POST.get("rank", "")) or 0).first()
    if suspect is None:
        raise NotFound
    if "skip" not in request.POST:
        label = None if "undo" in request.POST else "" if "drop" in request.POST else request.POST.get("label", "")
        services.decide(user=request.user, suspect=suspect, label=label)
    following = suspect if "undo" in request.POST else selectors.next_suspect(version, suspect.rank)
    if request.htmx:
        return _page(request, version, following)
    return redirect(f"{reverse('datasets:noise', args=[name])}?version={version.number}&after={suspect.rank}")


@login_required
@require_POST
def apply(request: SignedIn, name: str) -> HttpResponse:
    """Make the next version of what was corrected and dropped."""
    version = managed_version(request, name)
    try:
        made = changes.from_decisions(user=request.user, version=version)
    except Conflict as error:
        messages.error(request, str(error.message))
        return redirect(f"{reverse('datasets:noise', args=[name])}?version={version.number}")
    if isinstance(made, DataTask):
        return shown(request, made)
    messages.success(request, _("Version %(number)s has the corrected labels.") % {"number": made.number})
    return redirect(f"{reverse('datasets:noise', args=[name])}?version={version.number}")
