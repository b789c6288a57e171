"""The home page, and the badge of the runs in progress that every page has."""

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from accounts.http import SignedInRequest
from datasets_app.selectors import datasets_for
from training.models import ENDED
from training.selectors import visible_tasks


@login_required
def home(request: SignedInRequest) -> HttpResponse:
    tasks = visible_tasks(request.user)
    context = {
        "running": tasks.exclude(status__in=ENDED)[:20],
        "ended": tasks.filter(status__in=ENDED).order_by("-ended_at")[:5],
        "has_data": datasets_for(request.user).exists(),
    }
    return render(request, "home.html", context)


@login_required
@require_GET
def running(request: SignedInRequest) -> HttpResponse:
    """The badge of the sidebar, which is polled."""
    return render(request, "parts/running.html")
