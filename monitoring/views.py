"""What machines ask (is it alive, is it ready, what are the figures) and the page for admins."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers
from prometheus_client import CONTENT_TYPE_LATEST

from web.access import may_read_metrics, require_admin

from . import health, selectors
from .metrics import exposition


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers. It asks nothing else, since a restart of it would mend nothing else."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """503 with the reasons while a check fails; `?only=database&only=disk` asks some of them."""
    found = health.checks(request.GET.getlist("only"))
    ready = health.is_ready(found)
    body = {"ready": ready, "checks": {check.name: {"state": check.state, "reason": check.reason} for check in found}}
    return JsonResponse(body, status=200 if ready else 503, json_dumps_params={"ensure_ascii": False})


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    if not may_read_metrics(request.META):
        said = _("Metrics are read on the machine itself, or with the bearer token that METRICS_TOKEN names.")
        return HttpResponse(f"{said}\n", status=403, content_type="text/plain; charset=utf-8")
    return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST)


@login_required
@require_safe
@vary_on_headers("HX-Request")
def system(request: Any) -> HttpResponse:
    require_admin(request.user)
    name = "monitoring/system.html" + ("#live" if request.htmx else "")
    return render(request, name, {"system": selectors.system()})
