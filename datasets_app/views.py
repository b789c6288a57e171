"""The dataset pages."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HTMX_STOP_POLLING
from django_htmx.middleware import HtmxDetails

from accounts.models import User
from accounts.permissions import get_managed, require_creator, visible
from datasets_app import selectors, services
from datasets_app.checks import report
from datasets_app.reading import hub, uploads
from datasets_app.reading.sandbox import ReadingStopped
from engine.config import SAMPLE_MODEL
from web.errors import Conflict, Invalid, LorasiteError
from web.requests import whole_number
from web.throttles import limited
from work.models import ENDED, Status

from .forms import DELIMITER_WORDS, HubForm, StoreForm, UploadForm
from .models import Dataset, DataTask, Version

if TYPE_CHECKING:
    from datasets_app.reading.table import Table


class SignedIn(HttpRequest):
    """A request that login_required has let through."""

    user: User
    htmx: HtmxDetails


PREVIEW_ROWS = 20
TOKEN_LIMIT, MOST_TOKENS = 128, 8192  # the usual data.max_length
ROWS_PER_PAGE = 50


@login_required
@require_safe
def dataset_list(request: SignedIn) -> HttpResponse:
    page = Paginator(selectors.datasets_for(request.user), 25).get_page(request.GET.get("page"))
    lines = [report.summary(dataset.latest) for dataset in page if dataset.versions.all()]
    context = {"page": page, "lines": lines, "tasks": selectors.running_tasks(request.user)}
    return render(request, "datasets_app/list.html", context)


@csrf_exempt  # the size is judged before anything parses the body; the inner view checks the token
@uploads.limits_upload
@csrf_protect
@login_required
@limited("upload")
def new(request: SignedIn) -> HttpResponse:
    """Step one: send a file. It is put aside, read once, and shown."""
    require_creator(request.user)
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        kept = None
        try:
            kept = uploads.keep(user=request.user, upload=form.cleaned_data["file"])
            _read(kept)
        except LorasiteError as error:
            if kept:
                uploads.discard(kept)
            if not isinstance(error, Invalid):
                raise
            form.add_error("file", str(error.message))
            return _new_page(request, form, status=error.status)
        query = request.GET.urlencode()
        return redirect(reverse("datasets:preview", args=[kept.token]) + (f"?{query}" if query else ""))
    return _new_page(request, form, status=400 if form.is_bound else 200)


@login_required
@require_POST
def from_hub(request: SignedIn) -> HttpResponse:
    """Fetch a data set of the hub; the task's page shows how far it is."""
    require_creator(request.user)
    form = HubForm(request.POST, auto_id="hub_%s")
    if form.is_valid():
        given = {key: value.strip() or None for key, value in form.cleaned_data.items() if key not in ("hub", "name")}
        try:
            task = hub.submit(
                user=request.user, name=form.cleaned_data["name"], identifier=form.cleaned_data["hub"], **given
            )
            return redirect("datasets:task", task.pk)
        except (Invalid, Conflict) as error:
            field = error.problems[0]["field"] if error.problems else None
            form.add_error(field if field in form.fields else None, str(error.message))
    return _new_page(request, UploadForm(), fetched=form, status=400)


def _new_page(request: SignedIn, form: UploadForm, *, status: int, fetched: HubForm | None = None) -> HttpResponse:
    context = {"form": form, "hub": fetched or HubForm(auto_id="hub_%s"), "limit_mb": settings.UPLOAD_LIMIT >> 20}
    return render(request, "datasets_app/new.html", context, status=status)


def _read(kept: uploads.Pending, encoding: str | None = None, delimiter: str | None = None) -> "Table":
    from datasets_app.reading import sandbox

    return sandbox.read(
        kept.file,
        kept.filename,
        head=True,
        limit=settings.UPLOAD_LIMIT,
        encoding=encoding or None,
        delimiter=delimiter or None,
        seconds=sandbox.QUICK_SECONDS,
    )


@login_required
@vary_on_headers("HX-Request")
def preview(request: SignedIn, token: str) -> HttpResponse:
    """Step two: the first rows as they were read; each guess can be changed, then version n is stored."""
    require_creator(request.user)
    kept = uploads.pending_for(request.user, token)
    problem: Invalid | Conflict | None = None
    chosen = request.POST.get("encoding"), request.POST.get("delimiter")
    try:
        table = _read(kept, *chosen)
    except Invalid as error:
        if not any(chosen) or isinstance(error, ReadingStopped):
            raise
        table, problem = _read(kept), error
    form = _store_form(request, kept, table)
    wants_storing = request.method == "POST" and "again" not in request.POST
    if wants_storing and not problem and form.is_valid():
        try:
            return _store(request, kept, form)
        except (Invalid, Conflict) as error:
            problem = error
    return _preview_page(request, kept, table, form, problem, bool(problem or (wants_storing and form.errors)))


def _store_form(request: SignedIn, kept: uploads.Pending, table: "Table") -> StoreForm:
    from datasets_app.reading import columns

    guessed = columns.guess(table)
    values: dict[str, Any] = {
        "encoding": table.encoding,
        "delimiter": table.delimiter,
        "text_column": guessed.text,
        "label_column": guessed.label,
        "name": request.GET.get("dataset") or _name_from(kept.filename),
    }
    # Another encoding or delimiter may rename the columns; a choice that no longer exists gives way to the guess.
    values |= {k: v for k, v in request.POST.items() if not k.endswith("_column") or v in table.columns}
    offered: dict[str, Any] = {"encodings": table.encodings, "delimiter": table.delimiter, "columns": table.columns}
    storing = request.method == "POST" and "again" not in request.POST
    return StoreForm(values, **offered) if storing else StoreForm(initial=values, **offered)


def _name_from(filename: str) -> str:
    stem = re.sub(r"(\.(csv|tsv|tab|txt|jsonl?|ndjson|parquet|gz))+$", "", filename.lower())
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._")[:80]


def _store(request: SignedIn, kept: uploads.Pending, form: StoreForm) -> HttpResponse:
    """Lead to the new version, or to the task that makes it."""
    fields: dict[str, Any] = {k: v or None for k, v in form.cleaned_data.items() if k != "note"}
    made = services.store_upload(user=request.user, kept=kept, note=form.cleaned_data["note"], **fields)
    if isinstance(made, DataTask):
        return redirect("datasets:task", made.pk)
    messages.success(
        request, _("Version %(number)s is stored: %(rows)s rows.") % {"number": made.number, "rows": made.rows}
    )
    return redirect("datasets:detail", name=made.dataset.name)


def _preview_page(
    request: SignedIn, kept: uploads.Pending, table: "Table", form: StoreForm, problem: Any, wrong: bool
) -> HttpResponse:
    if problem:
        field = next((p["field"] for p in problem.problems if p["field"] in form.fields), None)
        form.errors.setdefault(field or "__all__", form.error_class()).append(str(problem.message))
    chosen = {form["text_column"].value(): "text", form["label_column"].value(): "label"}
    shown = table.frame.head(PREVIEW_ROWS)
    context = {
        "kept": kept,
        "form": form,
        "table": table,
        "delimiter_word": DELIMITER_WORDS.get(table.delimiter, table.delimiter),
        "columns": [{"name": name, "role": chosen.get(name, "")} for name in table.columns],
        "rows": [[str(value)[:200] for value in row] for row in shown.select(table.columns).iter_rows()],
        "total": table.frame.height,
        "number": report.next_number(str(form["name"].value() or "")),
    }
    name = "datasets_app/preview.html" + ("#reading" if request.htmx else "")
    return render(request, name, context, status=getattr(problem, "status", 400) if wrong else 200)


@login_required
@require_safe
def detail(request: SignedIn, name: str) -> HttpResponse:
    dataset = selectors.dataset_for(request.user, name)
    version = selectors.version_of(dataset, request.GET.get("version"))
    manages = visible(request.user, Dataset.objects.filter(pk=dataset.pk), manage=True).exists()
    context = {**report.summary(version), "lengths": report.length_chart(version), "manages": manages}
    context["running"] = version.tasks.exclude(status__in=ENDED).first()
    context |= _analysis(request, version)
    return render(request, "datasets_app/detail.html", {**context, "findings": report.findings(version)})


def _analysis(request: SignedIn, version: Version) -> dict[str, Any]:
    """Tokens with the base model that was asked for, languages, words."""
    model, limit = request.GET.get("model") or SAMPLE_MODEL, _limit(request.GET.get("max_length", ""))
    return {
        "model": model[:200],
        "max_length": limit,
        "tokens": report.token_chart(version, model, limit),
        "counted": [*version.tokens],
        "languages": report.languages(version),
    }


def _limit(asked: str) -> int:
    return (
        min(MOST_TOKENS, max(8, int(asked))) if asked.isascii() and asked.isdigit() and len(asked) < 7 else TOKEN_LIMIT
    )


@login_required
@require_safe
def rows(request: SignedIn, name: str) -> HttpResponse:
    dataset = selectors.dataset_for(request.user, name)
    version = selectors.version_of(dataset, request.GET.get("version"))
    label, text, split = request.GET.get("label", ""), request.GET.get("q", "")[:200], request.GET.get("split", "")
    number = max(1, whole_number(request.GET.get("page", "")) or 1)
    start = (min(number, 1_000_000) - 1) * ROWS_PER_PAGE
    found, total = selectors.rows_page(version, label=label, text=text, split=split, start=start, size=ROWS_PER_PAGE)
    page = Paginator(range(total), ROWS_PER_PAGE).get_page(number)
    context = {"dataset": dataset, "version": version, "rows": found, "page": page, "total": total}
    context["manages"] = visible(request.user, Dataset.objects.filter(pk=dataset.pk), manage=True).exists()
    context["editing"] = request.GET.get("edit", "")
    return render(request, "datasets_app/rows.html", {**context, "label": label, "q": text, "split": split})


@login_required
@require_safe
def broken(request: SignedIn, name: str) -> HttpResponse:
    """The lines that could not be read, as a text file."""
    version = selectors.version_of(selectors.dataset_for(request.user, name), request.GET.get("version"))
    lines = selectors.broken_lines(version)
    answer = HttpResponse(lines, content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}-{version.number}-broken-lines.txt"'
    return answer


@login_required
@require_POST
def delete(request: SignedIn, name: str) -> HttpResponse:
    dataset = get_managed(request.user, Dataset.objects.all(), name=name)
    try:
        services.delete(user=request.user, dataset=dataset)
    except Conflict as error:
        messages.error(request, str(error.message))
        return redirect("datasets:detail", name=name)
    messages.success(request, _("The dataset “%(name)s” is deleted.") % {"name": name})
    return redirect("datasets:list")


@login_required
@require_safe
@vary_on_headers("HX-Request")
def task(request: SignedIn, task_id: UUID) -> HttpResponse:
    """Work on data, live; when it is done the page leads to what it made."""
    found = selectors.task_for(request.user, task_id)
    context = {"task": found, "leads_to": leads_to(found), "manages": found.owner == request.user}
    if not request.htmx:
        return render(request, "datasets_app/task.html", context)
    status = HTMX_STOP_POLLING if found.finished else 200
    return render(request, "datasets_app/task.html#progress", context, status=status)


def leads_to(task: DataTask) -> str:
    """The page with what a finished task made."""
    if task.status != Status.SUCCESS or not task.result:
        return ""
    page = "datasets:noise" if task.kind == DataTask.Kind.NOISE else "datasets:detail"
    query = {"version": task.result["version"]}
    if task.kind == DataTask.Kind.TOKENS:
        query["model"] = task.result["base_model"]
    return f"{reverse(page, args=[task.result['name']])}?{urlencode(query)}"


@login_required
@require_POST
def cancel(request: SignedIn, task_id: UUID) -> HttpResponse:
    services.cancel(user=request.user, task=selectors.task_for(request.user, task_id, manage=True))
    return redirect("datasets:task", task_id)
