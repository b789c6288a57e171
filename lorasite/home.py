"""The home page: runs in progress and the results of the last ones."""

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render

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
