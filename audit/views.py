"""Who did what: the page, and the same as CSV."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from web.access import require_admin
from web.errors import Invalid

from . import export, services
from .forms import FilterForm
from .models import Entry
from .selectors import search

PER_PAGE = 50


@login_required
@require_safe
def index(request: Any) -> HttpResponse:
    require_admin(request.user)
    form = FilterForm(request.GET)
    try:
        found, status = search(request.GET), 200
    except Invalid as error:
        form.add_error(error.problems[0]["field"], str(error.message))
        found, status = Entry.objects.none(), error.status
    context = {
        "form": form,
        "page": Paginator(found, PER_PAGE).get_page(request.GET.get("page")),
        "verdict": services.verify() if "verify" in request.GET else None,
    }
    return render(request, "audit/list.html", context, status=status)


@login_required
@require_safe
def as_csv(request: Any) -> StreamingHttpResponse:
    require_admin(request.user)
    found = services.export(request.GET)
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
    return StreamingHttpResponse(export.lines(found), content_type="text/csv; charset=utf-8", headers=headers)
