"""Pages: watch a run, cancel and resume it."""

from io import StringIO
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HTMX_STOP_POLLING

from accounts.http import SignedInRequest
from lists.polls import requested_tasks

from . import answers, curve_csv, run_page, selectors, services

VIEW = "run-view"  # the element that a click on a tab replaces


@login_required
@vary_on_headers("HX-Request", "HX-Target")
def run(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    """Show a run with the tab of the address (`tab`); for a click on a tab what is below the head, for a poll what changed.

    Status 286 ends the polling.
    """
    task = selectors.task_for(request.user, task_id)
    if not request.htmx or request.htmx.history_restore_request:
        return render(request, "training/run.html", run_page.page_context(request, task))
    if request.htmx.target == VIEW:
        return render(request, "training/run/view.html", run_page.page_context(request, task) | {"titled": True})
    status = HTMX_STOP_POLLING if task.finished else 200
    return render(request, "training/run/poll.html", run_page.poll_context(request, task), status=status)


@login_required
@require_GET
def states(request: SignedInRequest) -> HttpResponse:
    """Return the status chips of runs (`task`), for the poll of a list. Status 286 ends the polling."""
    tasks = list(selectors.visible_tasks(request.user).filter(pk__in=requested_tasks(request)))
    status = 200 if any(not task.finished for task in tasks) else HTMX_STOP_POLLING
    return render(request, "training/states.html", {"tasks": tasks}, status=status)


@login_required
@require_POST
def cancel(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    services.cancel(user=request.user, task=selectors.task_for(request.user, task_id, manage=True))
    return redirect("training:run", task_id)


@login_required
@require_POST
def resume(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    services.resume(user=request.user, task=selectors.task_for(request.user, task_id, manage=True))
    return redirect("training:run", task_id)


@login_required
@require_GET
def answers_jsonl(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    """What the model wrote to held-out prompts, as JSONL."""
    task = selectors.task_for(request.user, task_id)
    file = StringIO()
    answers.write_answers(task, file)
    return download(file, f"{task.experiment.name}-answers.jsonl", "application/x-ndjson")


def download(file: StringIO, name: str, content_type: str) -> HttpResponse:
    """Return a text as a file to save."""
    disposition = content_disposition_header(True, name)
    headers = {"Content-Disposition": disposition}
    return HttpResponse(file.getvalue(), content_type=f"{content_type}; charset=utf-8", headers=headers)


@login_required
@require_GET
def curves_csv(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    """All points of a run's curves as a CSV file; a chart reads it, too, when somebody zooms into a long run."""
    task = selectors.task_for(request.user, task_id)
    file = StringIO()
    curve_csv.write_points(task, file)
    return download(file, f"{task.experiment.name}-curves.csv", "text/csv")
