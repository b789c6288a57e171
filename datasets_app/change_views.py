"""Pages that make a new version: one-click fixes, edits of rows; and the comparison of two versions."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from accounts.permissions import get_managed
from datasets_app import selectors, services, wording
from datasets_app.checks import text_statistics
from datasets_app.versions import changes, diff
from engine.config import SAMPLE_MODEL
from engine.errors import EngineError
from web.errors import Conflict, Invalid
from web.requests import whole_number

from .models import Dataset, DataTask, Version
from .views import SignedIn


@login_required
@require_POST
def fix(request: SignedIn, name: str) -> HttpResponse:
    """Repair what one finding found, in a new version."""
    return changed(request, name, {"did": "fix", "code": request.POST.get("code", "")})


@login_required
@require_POST
def edit(request: SignedIn, name: str) -> HttpResponse:
    """Change or drop one row, in a new version."""
    row = request.POST.get("row", "")
    if whole_number(row) is None:
        raise Invalid(_("The row is a number."), field="row")
    new = None if "drop" in request.POST else {key: request.POST.get(key, "") for key in ("text", "label")}
    return changed(request, name, {"did": "edit", "rows": {row: new}})


def changed(request: SignedIn, name: str, change: dict[str, Any]) -> HttpResponse:
    """Make the new version, or start the task that makes it; a person is told on the page where the result is."""
    version = managed_version(request, name)
    try:
        made = changes.make(user=request.user, version=version, change=change)
    except (Conflict, Invalid) as error:
        messages.error(request, str(error.message))
        return redirect(f"{reverse('datasets:detail', args=[name])}?version={version.number}")
    return shown(request, made)


def shown(request: SignedIn, made: Version | DataTask) -> HttpResponse:
    if isinstance(made, DataTask):
        return redirect("datasets:task", made.pk)
    said = _("Version %(number)s is made: %(what)s.")
    messages.success(request, said % {"number": made.number, "what": wording.changed(made.change)})
    return redirect("datasets:detail", made.dataset.name)


def managed_version(request: SignedIn, name: str) -> Version:
    """The version that a form names, of a dataset that the person may change."""
    dataset = get_managed(request.user, Dataset.objects.all(), name=name)
    return selectors.version_of(dataset, request.POST.get("version"))


@login_required
@require_POST
def tokens(request: SignedIn, name: str) -> HttpResponse:
    """Count tokens with a base model of one's choice; of many rows in the queue."""
    version = managed_version(request, name)
    model = request.POST.get("model", "").strip().replace("\x00", "")[:200] or SAMPLE_MODEL
    query = urlencode({"version": version.number, "model": model, "max_length": request.POST.get("max_length", "")})
    if text_statistics.tokens(version, model) is None:
        try:
            task = services.count_tokens(user=request.user, version=version, model=model)
        except EngineError as error:
            messages.error(request, str(error))
            return redirect(f"{reverse('datasets:detail', args=[name])}?version={version.number}")
        if task:
            return redirect("datasets:task", task.pk)
    return redirect(f"{reverse('datasets:detail', args=[name])}?{query}#tokens-title")


@login_required
@require_safe
def compare(request: SignedIn, name: str) -> HttpResponse:
    """Two versions side by side: what was added, dropped, relabelled, rewritten."""
    dataset = selectors.dataset_for(request.user, name)
    new = selectors.version_of(dataset, request.GET.get("new"))
    old = selectors.version_of(dataset, request.GET.get("old") or (new.parent.number if new.parent else new.number))
    context = {"dataset": dataset, "old": old, "new": new, **diff.between(old, new)}
    return render(request, "datasets_app/compare.html", context)
