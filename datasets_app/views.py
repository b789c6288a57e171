"""Pages: list, report, rows and tasks."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import FileResponse, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HTMX_STOP_POLLING, HttpResponseClientRedirect, trigger_client_event

from accounts import removals
from accounts.http import SignedInRequest
from datasets_app import report_page, selectors, services
from datasets_app.checks import report
from datasets_app.conversations import turns_of
from datasets_app.reading.uploads import pending_for
from engine.models.plain_templates import USUAL
from lists.columns import column_heads
from lists.polls import requested_tasks
from lists.queries import lean_address, page_of, read_filters, render_list
from lists.selectors import tag_choices
from web.errors import ConflictError, NotFoundError
from web.requests import parse_whole_number
from work.models import Status

from .list_columns import BY_NAME, COLUMNS
from .models import Dataset, DataTask, Version

ROWS_PER_PAGE = 50
DATASETS_PER_PAGE = 25


@login_required
@require_safe
@vary_on_headers("HX-Request")
@lean_address(sort=[BY_NAME])
def dataset_list(request: SignedInRequest) -> HttpResponse:
    """List the datasets that the person may see, 25 on a page, and the person's unfinished tasks."""
    query = read_filters(request.GET, selectors.FILTERS)
    page = page_of(request, selectors.search(request.user, **query), DATASETS_PER_PAGE)
    context = {
        "page": page,
        "query": query,
        "heads": column_heads(COLUMNS, query["sort"] or BY_NAME),
        "lines": [report.summary(version) for version in selectors.newest_versions(page)],
        "tag_names": tag_choices(request.user, Dataset),
        **task_lines(selectors.running_tasks(request.user)),
    }
    return render_list(request, "datasets_app/list.html", context, kind="dataset")


@login_required
@require_safe
def states(request: SignedInRequest) -> HttpResponse:
    """Return how far tasks (`task`) are, for the poll of the list; the answer polls no more when all have ended.

    When one of them has ended since, the event `datasets-changed` lets the list below load itself again.
    """
    tasks = list(selectors.visible_tasks(request.user).filter(pk__in=requested_tasks(request)))
    context = task_lines(tasks) | {"swap": True}
    response = render(request, "datasets_app/states.html", context)
    if len(context["unfinished"]) < len(tasks):
        trigger_client_event(response, "datasets-changed")
    return response


def task_lines(tasks: Iterable[DataTask]) -> dict[str, Any]:
    """Return what datasets_app/states.html shows: each task with the address of its result, and whom to ask about again."""
    lines = [(task, result_url(task)) for task in tasks]
    return {"task_lines": lines, "unfinished": [task for task, _result in lines if not task.finished]}


@login_required
@require_safe
def detail(request: SignedInRequest, name: str) -> HttpResponse:
    """Show the validation report of a version, one tab of it (`tab`)."""
    version = selectors.version_of(selectors.dataset_for(request.user, name), request.GET.get("version"))
    return render(request, "datasets_app/detail.html", report_page.page_context(request, version))


@login_required
@require_safe
def rows(request: SignedInRequest, name: str) -> HttpResponse:
    """Search and filter the rows of a version, as a tab of the dataset's page."""
    version = selectors.version_of(selectors.dataset_for(request.user, name), request.GET.get("version"))
    label = request.GET.get("label", "")
    text = request.GET.get("q", "")[:200]
    split = request.GET.get("split", "")
    number = max(1, parse_whole_number(request.GET.get("page", "")) or 1)
    start = (min(number, 1_000_000) - 1) * ROWS_PER_PAGE
    page_rows, total = selectors.rows_page(
        version, label=label, text=text, split=split, start=start, size=ROWS_PER_PAGE
    )
    editing = request.GET.get("edit", "")
    if editing == "only" and total == 1:  # a link that knows the text of a row, and not its number
        editing = str(page_rows[0]["row"])
    for row in page_rows:
        if version.is_chat:
            row["turns"] = turns_of(row["text"])
        else:
            row["shown_label"] = shown_label(row, version.kind)
    context = {
        **report_page.head_context(request, version, report_page.ROWS),
        "rows": page_rows,
        "page": Paginator(range(total), ROWS_PER_PAGE).get_page(number),
        "total": total,
        "editing": editing,
        "label": label,
        "q": text,
        "split": split,
    }
    return render(request, "datasets_app/rows.html", context)


def shown_label(row: dict[str, Any], kind: str) -> str:
    """Return the label of a row as people read it."""
    if kind == Version.Kind.MULTI_LABEL:
        return ", ".join(json.loads(row["label"])) or _("none")
    if kind == Version.Kind.SPANS:
        spans = json.loads(row["label"])
        return "; ".join(f"{row['text'][span['start'] : span['end']]}: {span['label']}" for span in spans) or _("none")
    return str(row["label"])


@login_required
@require_safe
def download(request: SignedInRequest, name: str) -> FileResponse:
    """Download the rows of a version as a file, filtered as on the page of the rows."""
    from datasets_app.versions import export  # pyarrow takes a while to import

    version = selectors.version_of(selectors.dataset_for(request.user, name), request.GET.get("version"))
    row_filter = selectors.RowFilter.of_query(request.GET)
    exported = export.export(version, request.GET.get("format", "csv"), row_filter)
    return FileResponse(
        exported.file, as_attachment=True, filename=exported.filename, content_type=exported.content_type
    )


@login_required
@require_safe
def broken(request: SignedInRequest, name: str) -> HttpResponse:
    """Download the lines that could not be read, as a text file."""
    dataset = selectors.dataset_for(request.user, name)
    version = selectors.version_of(dataset, request.GET.get("version"))
    lines = selectors.broken_lines(version)
    filename = f"{dataset.name}-{version.number}-broken-lines.txt"
    headers = {"Content-Disposition": content_disposition_header(True, filename)}
    return HttpResponse(lines, content_type="text/plain; charset=utf-8", headers=headers)


@login_required
@require_POST
def delete(request: SignedInRequest, name: str) -> HttpResponse:
    dataset = selectors.dataset_for(request.user, name, manage=True)
    try:
        removal = services.remove(user=request.user, dataset=dataset)
    except ConflictError as error:
        messages.error(request, str(error.message))
        return redirect("datasets:detail", name=name)
    removals.show_removals(request, [removal], _("The dataset “%(name)s” was deleted.") % {"name": name})
    return redirect("datasets:list")


@login_required
@require_safe
@vary_on_headers("HX-Request")
def task(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    """Show the progress of a task; once it has ended, link to what it made."""
    data_task = selectors.task_for(request.user, task_id)
    leads_to = result_url(data_task)
    context = {
        "task": data_task,
        "leads_to": leads_to,
        "preview": preview_url(data_task) if data_task.owner == request.user else "",
        "manages": data_task.owner == request.user,
    }
    if not request.htmx:
        return render(request, "datasets_app/task.html", context)
    if leads_to:
        return HttpResponseClientRedirect(leads_to)  # who waits on this page is taken to the result
    status = HTMX_STOP_POLLING if data_task.finished else 200
    return render(request, "datasets_app/task.html#progress", context, status=status)


def preview_url(task: DataTask) -> str:
    """Return the address of the preview that a failed task was started from, while its file is there; else nothing."""
    if task.kind != DataTask.Kind.STORE or task.status != Status.FAILURE:
        return ""
    token = task.arguments.get("token", "")
    try:
        pending_for(task.owner, token)
    except NotFoundError:
        return ""
    return f"{reverse('datasets:preview', args=[token])}?{urlencode({'task': task.pk})}"


def result_url(task: DataTask) -> str:
    """Return the address of the page with the result of a task; an empty string if it has none."""
    if task.status != Status.SUCCESS or not task.result:
        return ""
    page = "datasets:noise" if task.kind == DataTask.Kind.NOISE else "datasets:detail"
    query = {"version": task.result["version"]}
    if task.kind == DataTask.Kind.TOKENS:
        query["model"] = task.result["base_model"]
        query["chat_template"] = task.result.get("chat_template", USUAL)
    return f"{reverse(page, args=[task.result['name']])}?{urlencode(query)}"


@login_required
@require_POST
def cancel(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    services.cancel(user=request.user, task=selectors.task_for(request.user, task_id, manage=True))
    return redirect("datasets:task", task_id)
