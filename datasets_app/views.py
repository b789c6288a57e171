"""Pages: list, upload, preview, report, rows and tasks."""

import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import FileResponse, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HTMX_STOP_POLLING

from accounts.http import SignedInRequest
from accounts.permissions import can_manage, require_creator
from datasets_app import selectors, services
from datasets_app.checks import report
from datasets_app.reading import hub, uploads
from datasets_app.reading.sandbox import ReadingStoppedError
from engine.config import SAMPLE_MODEL
from engine.names import LONGEST_NAME
from web.errors import ConflictError, InvalidError, LorasiteError
from web.requests import parse_whole_number
from web.throttles import throttle_posts
from work.models import ENDED, Status

from .forms import HubForm, StoreForm, UploadForm
from .models import DataTask

if TYPE_CHECKING:
    from datasets_app.reading.table import Table
    from datasets_app.versions.creation import StoreOptions


PREVIEW_ROWS = 20
TOKEN_LIMIT = 128  # the default of data.max_length
MOST_TOKENS = 8192
ROWS_PER_PAGE = 50
_READ_OPTIONS = ("encoding", "delimiter", "text_column", "label_column")


@login_required
@require_safe
def dataset_list(request: SignedInRequest) -> HttpResponse:
    """List the datasets that the person may see, 25 on a page, and the person's unfinished tasks."""
    page = Paginator(selectors.datasets_for(request.user), 25).get_page(request.GET.get("page"))
    lines = [report.summary(dataset.latest) for dataset in page if dataset.versions.all()]
    context = {"page": page, "lines": lines, "tasks": selectors.running_tasks(request.user)}
    return render(request, "datasets_app/list.html", context)


@csrf_exempt  # checking the token parses the body, so the size is checked first; the decorator below checks the token
@uploads.limits_upload
@csrf_protect
@login_required
@throttle_posts("upload")
def new(request: SignedInRequest) -> HttpResponse:
    """Step one: upload a file. It is kept aside and read once to find problems; the preview follows."""
    require_creator(request.user)
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        pending = None
        try:
            pending = uploads.keep_upload(user=request.user, upload=form.cleaned_data["file"])
            _read_head(pending)
        except LorasiteError as error:
            if pending:
                uploads.discard_upload(pending)
            if not isinstance(error, InvalidError):
                raise
            form.add_error("file", str(error.message))
            return _render_new(request, form, status=error.status)
        address = reverse("datasets:preview", args=[pending.token])
        query = request.GET.urlencode()
        return redirect(f"{address}?{query}" if query else address)
    return _render_new(request, form, status=400 if form.is_bound else 200)


@login_required
@require_POST
def from_hub(request: SignedInRequest) -> HttpResponse:
    """Fetch a data set of the model hub by a task, and lead to its page."""
    require_creator(request.user)
    form = HubForm(request.POST, auto_id="hub_%s")
    if form.is_valid():
        fields = form.cleaned_data
        names = ("config", "revision", "text_column", "label_column")
        options = {name: fields[name].strip() or None for name in names}
        try:
            task = hub.submit_fetch(user=request.user, name=fields["name"], identifier=fields["hub"], **options)
            return redirect("datasets:task", task.pk)
        except (InvalidError, ConflictError) as error:
            form.add_service_error(error)
    return _render_new(request, UploadForm(), hub_form=form, status=400)


def _render_new(
    request: SignedInRequest, form: UploadForm, *, status: int, hub_form: HubForm | None = None
) -> HttpResponse:
    context = {"form": form, "hub": hub_form or HubForm(auto_id="hub_%s"), "limit_mb": settings.UPLOAD_LIMIT >> 20}
    return render(request, "datasets_app/new.html", context, status=status)


def _read_head(pending: uploads.PendingUpload, encoding: str | None = None, delimiter: str | None = None) -> "Table":
    """Read the first rows of an upload."""
    from datasets_app.reading import sandbox

    return sandbox.read(
        pending.file,
        pending.filename,
        head=True,
        limit=settings.UPLOAD_LIMIT,
        encoding=encoding or None,
        delimiter=delimiter or None,
        seconds=sandbox.QUICK_SECONDS,
    )


@login_required
@vary_on_headers("HX-Request")
def preview(request: SignedInRequest, token: str) -> HttpResponse:
    """Step two: show the first rows as they were read, let the person correct the guesses, and store the version."""
    require_creator(request.user)
    pending = uploads.pending_for(request.user, token)
    problem: InvalidError | ConflictError | None = None
    encoding = request.POST.get("encoding")
    delimiter = request.POST.get("delimiter")
    try:
        table = _read_head(pending, encoding, delimiter)
    except InvalidError as error:
        if not (encoding or delimiter) or isinstance(error, ReadingStoppedError):
            raise
        problem = error
        table = _read_head(pending)  # as guessed, so that the page has rows to show beside the error
    stores = request.method == "POST" and "again" not in request.POST
    form = _store_form(request, pending, table, is_bound=stores)
    if stores and not problem and form.is_valid():
        try:
            return _store(request, pending, form)
        except (InvalidError, ConflictError) as error:
            problem = error
    if problem:
        field = next((p["field"] for p in problem.problems if p["field"] in form.fields), None)
        form.errors.setdefault(field or "__all__", form.error_class()).append(str(problem.message))
        status = problem.status
    else:
        status = 400 if stores and form.errors else 200
    return _render_preview(request, pending, table, form, status)


def _store_form(
    request: SignedInRequest, pending: uploads.PendingUpload, table: "Table", *, is_bound: bool
) -> StoreForm:
    """Return the form with the person's choices, and the guesses where there is no choice."""
    from datasets_app.reading import columns  # imports polars, which takes half a second

    guessed = columns.guess(table)
    stem = re.sub(r"(\.(csv|tsv|tab|txt|jsonl?|ndjson|parquet|gz))+$", "", pending.filename.lower())
    name = re.sub(r"[^a-z0-9._-]+|\.{2,}", "-", stem)[:LONGEST_NAME].strip("-._")
    values: dict[str, Any] = {
        "encoding": table.encoding,
        "delimiter": table.delimiter,
        "text_column": guessed.text,
        "label_column": guessed.label,
        "name": request.GET.get("dataset") or name,
    }
    for field, value in request.POST.items():
        # Another encoding or delimiter may rename the columns; then the guess replaces a column that no longer exists.
        if not field.endswith("_column") or value in table.columns:
            values[field] = value
    choices: dict[str, Any] = {"encodings": table.encodings, "delimiter": table.delimiter, "columns": table.columns}
    return StoreForm(values, **choices) if is_bound else StoreForm(initial=values, **choices)


def _store(request: SignedInRequest, pending: uploads.PendingUpload, form: StoreForm) -> HttpResponse:
    """Store the upload and redirect to the new version, or to the task that makes it."""
    fields = form.cleaned_data
    read_options = {name: fields[name] or None for name in _READ_OPTIONS if name in fields}
    options = cast("StoreOptions", {"note": fields["note"], **read_options})
    stored = services.store_upload(
        user=request.user,
        pending=pending,
        name=fields["name"],
        **options,
    )
    if isinstance(stored, DataTask):
        return redirect("datasets:task", stored.pk)
    message = _("Version %(number)s was stored: %(rows)s rows.")
    messages.success(request, message % {"number": stored.number, "rows": stored.rows})
    return redirect("datasets:detail", name=stored.dataset.name)


def _render_preview(
    request: SignedInRequest, pending: uploads.PendingUpload, table: "Table", form: StoreForm, status: int
) -> HttpResponse:
    roles = {form["text_column"].value(): "text", form["label_column"].value(): "label"}
    first_rows = table.frame.head(PREVIEW_ROWS).select(table.columns)
    context = {
        "pending": pending,
        "form": form,
        "table": table,
        "columns": [{"name": name, "role": roles.get(name, "")} for name in table.columns],
        "rows": [[str(value)[:200] for value in row] for row in first_rows.iter_rows()],
        "total": table.frame.height,
        "number": selectors.next_number(str(form["name"].value() or "")),
    }
    name = "datasets_app/preview.html" + ("#reading" if request.htmx else "")
    return render(request, name, context, status=status)


@login_required
@require_safe
def detail(request: SignedInRequest, name: str) -> HttpResponse:
    """Show the validation report of a version."""
    dataset = selectors.dataset_for(request.user, name)
    version = selectors.version_of(dataset, request.GET.get("version"))
    model = request.GET.get("model") or SAMPLE_MODEL
    limit = parse_whole_number(request.GET.get("max_length", ""))
    if limit is None or limit > 999_999:
        limit = TOKEN_LIMIT
    limit = min(MOST_TOKENS, max(8, limit))
    context = {
        **report.summary(version),
        "lengths": report.length_chart(version),
        "findings": report.findings(version),
        "manages": can_manage(request.user, dataset),
        "running": version.tasks.exclude(status__in=ENDED).first(),
        "model": model[:200],
        "max_length": limit,
        "tokens": report.token_chart(version, model, limit),
        "counted": [*version.tokens],
        "languages": report.languages(version),
    }
    return render(request, "datasets_app/detail.html", context)


@login_required
@require_safe
def rows(request: SignedInRequest, name: str) -> HttpResponse:
    """Search and filter the rows of a version."""
    dataset = selectors.dataset_for(request.user, name)
    version = selectors.version_of(dataset, request.GET.get("version"))
    label = request.GET.get("label", "")
    text = request.GET.get("q", "")[:200]
    split = request.GET.get("split", "")
    number = max(1, parse_whole_number(request.GET.get("page", "")) or 1)
    start = (min(number, 1_000_000) - 1) * ROWS_PER_PAGE
    page_rows, total = selectors.rows_page(
        version, label=label, text=text, split=split, start=start, size=ROWS_PER_PAGE
    )
    context = {
        "dataset": dataset,
        "version": version,
        "rows": page_rows,
        "page": Paginator(range(total), ROWS_PER_PAGE).get_page(number),
        "total": total,
        "manages": can_manage(request.user, dataset),
        "editing": request.GET.get("edit", ""),
        "label": label,
        "q": text,
        "split": split,
    }
    return render(request, "datasets_app/rows.html", context)


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
    response = HttpResponse(lines, content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}-{version.number}-broken-lines.txt"'
    return response


@login_required
@require_POST
def delete(request: SignedInRequest, name: str) -> HttpResponse:
    dataset = selectors.dataset_for(request.user, name, manage=True)
    try:
        services.delete(user=request.user, dataset=dataset)
    except ConflictError as error:
        messages.error(request, str(error.message))
        return redirect("datasets:detail", name=name)
    messages.success(request, _("The dataset “%(name)s” was deleted.") % {"name": name})
    return redirect("datasets:list")


@login_required
@require_safe
@vary_on_headers("HX-Request")
def task(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    """Show the progress of a task; once it has ended, link to what it made."""
    data_task = selectors.task_for(request.user, task_id)
    context = {"task": data_task, "leads_to": result_url(data_task), "manages": data_task.owner == request.user}
    if not request.htmx:
        return render(request, "datasets_app/task.html", context)
    status = HTMX_STOP_POLLING if data_task.finished else 200
    return render(request, "datasets_app/task.html#progress", context, status=status)


def result_url(task: DataTask) -> str:
    """Return the address of the page with the result of a task; an empty string if it has none."""
    if task.status != Status.SUCCESS or not task.result:
        return ""
    page = "datasets:noise" if task.kind == DataTask.Kind.NOISE else "datasets:detail"
    query = {"version": task.result["version"]}
    if task.kind == DataTask.Kind.TOKENS:
        query["model"] = task.result["base_model"]
    return f"{reverse(page, args=[task.result['name']])}?{urlencode(query)}"


@login_required
@require_POST
def cancel(request: SignedInRequest, task_id: UUID) -> HttpResponse:
    services.cancel(user=request.user, task=selectors.task_for(request.user, task_id, manage=True))
    return redirect("datasets:task", task_id)
