"""Pages: find an experiment, and see whether to trust it."""

from typing import Any

import yaml
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import FileResponse, HttpResponse
from django.shortcuts import render

from accounts.errors import NotFound
from audit.services import record

from .selectors import SORTABLE, experiment_for, files, search

PER_PAGE = 50


@login_required
def index(request: Any) -> HttpResponse:
    query = {name: request.GET.get(name, "") for name in ("q", "status", "sort")}
    found = search(request.user, query["q"], query["status"], query["sort"] or "-created")
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "experiments/list.html", {"page": page, "query": query, "sortable": SORTABLE})


@login_required
def detail(request: Any, name: str) -> HttpResponse:
    experiment = experiment_for(request.user, name)
    context = {
        "experiment": experiment,
        "eval": experiment.metrics.get("eval", {}),
        "baseline": experiment.metrics.get("baseline", {}),
        "matrix": matrix(experiment.labels, experiment.metrics.get("eval", {}).get("confusion_matrix", [])),
        "worst": experiment.metrics.get("worst", [])[:10],
        "files": files(experiment),
        "config": yaml.safe_dump(experiment.config, sort_keys=False, allow_unicode=True),
    }
    return render(request, "experiments/detail.html", context)


def matrix(labels: list[str], counts: list[list[int]]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix; heat is 0 to 9 by the share of the row."""
    return [
        {"label": label, "cells": [{"count": n, "heat": 9 * n // max(1, sum(row))} for n in row]}
        for label, row in zip(labels, counts, strict=False)
    ]


@login_required
def file(request: Any, name: str, path: str) -> FileResponse:
    """One file of the results; only what the list of files names can be had."""
    experiment = experiment_for(request.user, name)
    if path not in {entry["path"] for entry in files(experiment)}:
        raise NotFound
    record("experiment.download", obj=experiment, path=path)
    return FileResponse((experiment.folder / path).open("rb"), as_attachment=True)
