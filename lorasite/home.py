from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render

from datasets_app.selectors import datasets_for
from training.models import ENDED
from training.selectors import visible_tasks


@login_required
def home(request: Any) -> HttpResponse:
    tasks = visible_tasks(request.user)
    context = {
        "running": tasks.exclude(status__in=ENDED)[:20],
        "ended": tasks.filter(status__in=ENDED).order_by("-ended_at")[:5],
        "has_data": datasets_for(request.user).exists(),
    }
    return render(request, "home.html", context)
