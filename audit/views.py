"""The audit log as a page and as CSV."""

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from web.access import require_admin
from web.errors import InvalidError

from . import export, services
from .forms import FilterForm
from .models import Entry
from .selectors import search
from .words import ACTIONS

PER_PAGE = 50


@login_required
@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Show the entries that match the filters; with `verify` in the query, also check the whole chain."""
    require_admin(request.user)
    form = FilterForm(request.GET)
    status = 200
    try:
        entries = search(request.GET)
    except InvalidError as error:
        form.add_service_error(error)
        entries = Entry.objects.none()
        status = error.status
    context = {
        "form": form,
        "actions": ACTIONS.items(),
        "page": Paginator(entries, PER_PAGE).get_page(request.GET.get("page")),
        "verdict": services.verify() if "verify" in request.GET else None,
    }
    return render(request, "audit/list.html", context, status=status)


@login_required
@require_safe
def as_csv(request: HttpRequest) -> StreamingHttpResponse:
    """Download the entries that match the filters."""
    require_admin(request.user)
    entries = services.export(request.GET)
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
    return StreamingHttpResponse(export.lines(entries), content_type="text/csv; charset=utf-8", headers=headers)
