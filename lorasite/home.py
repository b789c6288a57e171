"""The overview, and the badge of the runs in progress that every page has."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from accounts.http import SignedInRequest
from lorasite import overview


@login_required
@vary_on_headers("HX-Request")
def home(request: SignedInRequest) -> HttpResponse:
    """Show the overview; for a poll only the runs."""
    context: dict[str, Any] = {
        "active": overview.active_runs(request.user),
        "ended": overview.ended_runs(request.user),
    }
    if request.htmx:
        return render(request, "home.html#runs", context)
    steps = overview.first_steps(request.user)
    context |= {
        "steps": steps,
        "next_step": next((step for step in steps if not step.done), None),
        "attention": overview.attention(request.user),
        "models": overview.models_to_try(request.user),
        "installation": overview.installation(request.user),
    }
    return render(request, "home.html", context)


@login_required
@require_GET
def running(request: SignedInRequest) -> HttpResponse:
    """The counts of the sidebar, which are polled: runs in progress, unread notifications."""
    return render(request, "parts/counts.html")
