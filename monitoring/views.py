"""Health, readiness and metrics for machines, and the System page for administrators."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers
from prometheus_client import CONTENT_TYPE_LATEST

from accounts.http import SignedInRequest
from web.access import may_read_metrics, require_admin

from . import health, selectors
from .metrics import exposition


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while this process runs. Checks nothing else, since restarting the process would repair nothing else."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 503 with the reasons while a check fails. `?only=database&only=disk` runs some of the checks."""
    checks = health.checks(request.GET.getlist("only"))
    ready = health.is_ready(checks)
    states = {check.name: {"state": check.state, "reason": check.reason} for check in checks}
    body = {"ready": ready, "checks": states}
    status = 200 if ready else 503
    return JsonResponse(body, status=status, json_dumps_params={"ensure_ascii": False})


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer all metrics in Prometheus' format."""
    if not may_read_metrics(request.META):
        message = _("Metrics can be read on this machine only, or with the bearer token set in METRICS_TOKEN.")
        return HttpResponse(f"{message}\n", status=403, content_type="text/plain; charset=utf-8")
    return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST)


@login_required
@require_safe
@vary_on_headers("HX-Request")
def system(request: SignedInRequest) -> HttpResponse:
    """Render the System page; for a poll by htmx, only the part that changes."""
    require_admin(request.user)
    name = "monitoring/system.html" + ("#live" if request.htmx else "")
    return render(request, name, {"system": selectors.system()})
