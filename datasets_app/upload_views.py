"""Pages: upload a file, check how it is read, correct it, store it."""

import re
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_POST
from django.views.decorators.vary import vary_on_headers

from accounts.http import SignedInRequest
from accounts.permissions import require_creator
from datasets_app import preview as upload_preview
from datasets_app import selectors, services
from datasets_app.reading import hub, uploads
from datasets_app.versions.upload_storage import find_stored, key_of_page
from engine.names import nearest_name
from web.errors import ConflictError, InvalidError, LorasiteError, NotFoundError
from web.throttles import throttle_posts

from .forms import CHAT_ROLES, SHOWN_COLUMNS, HubForm, PreviewForm, UploadForm, typed_character
from .models import DataTask, Version

if TYPE_CHECKING:
    from datasets_app.versions.creation import StoreOptions

_SUFFIXES = r"(\.(csv|tsv|tab|txt|jsonl?|ndjson|parquet|pq|xlsx?|xlsb|ods|ya?ml|label|conll|gz|zip))+$"


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
            pending = uploads.keep_upload(user=request.user, files=form.cleaned_data["file"])
            upload_preview.read_head(pending, {})
        except LorasiteError as error:
            if pending and upload_preview.is_correctable(error):
                return _lead_to_preview(request, pending)
            if pending:
                uploads.discard_upload(pending)
            if not isinstance(error, InvalidError):
                raise
            form.add_error("file", str(error.message))
            return _render_new(request, form, status=error.status)
        return _lead_to_preview(request, pending)
    return _render_new(request, form, status=400 if form.is_bound else 200)


def _lead_to_preview(request: SignedInRequest, pending: uploads.PendingUpload) -> HttpResponse:
    """Redirect to step two, for the same dataset."""
    address = reverse("datasets:preview", args=[pending.token])
    query = request.GET.urlencode()
    return redirect(f"{address}?{query}" if query else address)


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


# --- step two --------------------------------------------------------------------------------------------------------


@login_required
@vary_on_headers("HX-Request")
def preview(request: SignedInRequest, token: str) -> HttpResponse:
    """Step two: show the first rows as they are read, let the person correct the guesses, and store the version."""
    require_creator(request.user)
    stores = request.method == "POST" and "again" not in request.POST
    if stores and (stored := find_stored(request.user, *key_of_page(token))):
        return _lead_to(request, stored)  # the button was pressed twice
    pending = uploads.pending_for(request.user, token)
    options, name = _options_of(request)
    reading = upload_preview.read(pending, options)
    usual_name = nearest_name(re.sub(_SUFFIXES, "", pending.filename.lower()))
    initial = {**options, "name": name or request.GET.get("dataset") or usual_name}
    data: dict[str, Any] | None = None
    if request.method == "POST":
        data = {"name": initial["name"], **request.POST.dict(), **upload_preview.current_roles(reading)}
    if reading.table and reading.table.encoding:
        initial.setdefault("encoding", reading.table.encoding)
        if data is not None:
            data.setdefault("encoding", reading.table.encoding)
    form = PreviewForm(data if stores else None, initial=data or initial, table=reading.table, choice=reading.choice)
    if stores and not reading.problem and form.is_valid():
        try:
            arguments = cast("StoreOptions", {**options, "note": form.cleaned_data["note"]})
            key, digest = key_of_page(token)
            stored = services.store_upload(
                user=request.user,
                pending=pending,
                name=form.cleaned_data["name"],
                idempotency_key=key,
                digest=digest,
                **arguments,
            )
            return _lead_to(request, stored)
        except (InvalidError, ConflictError) as error:
            reading.problem = error
    return _render_preview(request, pending, reading, form, stores=stores)


def _options_of(request: SignedInRequest) -> tuple[dict[str, Any], str]:
    """Return what the person said about the file, and the name: in the form, or when an earlier task failed."""
    if request.method == "POST":
        return _posted_options(request), request.POST.get("name", "")
    if task_id := request.GET.get("task", ""):
        try:
            task = selectors.task_for(request.user, UUID(task_id))
        except ValueError:
            raise NotFoundError from None
        return {name: value for name, value in task.arguments.items() if name != "token"}, task.name
    if dataset := request.GET.get("dataset"):
        return _options_of_last_version(request, dataset), dataset
    return {}, ""


def _posted_options(request: SignedInRequest) -> dict[str, Any]:
    """Return the options among the fields of the form; what is empty is guessed."""
    posted = request.POST
    options: dict[str, Any] = {name: posted[name] for name in ("encoding", "sheet", "kind") if posted.get(name)}
    for name in ("delimiter", "quote"):
        character = typed_character(posted.get(name))
        if character is not None:
            options[name] = character
    if posted.get("header") in ("yes", "no"):
        options["header"] = posted["header"] == "yes"
    if posted.get("skip_lines", "").isdigit():
        options["skip_lines"] = min(10_000, int(posted["skip_lines"][:5]))
    if posted.get("merge_labels"):
        options["merge_labels"] = True
    columns = [(posted.get(f"column_{i}", ""), posted.get(f"role_{i}", "")) for i in range(SHOWN_COLUMNS)]
    options["text_columns"] = [name for name, role in columns if role == "text"]
    options["label_columns"] = [name for name, role in columns if role == "label"]
    options["text_pair_column"] = next((name for name, role in columns if role == "text_pair"), "")
    options["split_column"] = next((name for name, role in columns if role == "split"), "")
    options["column_roles"] = {name: role for name, role in columns if role in CHAT_ROLES}
    values = {posted[f"value_{i}"]: posted.get(f"split_{i}", "") for i in range(50) if f"value_{i}" in posted}
    options["split_values"] = values
    return {name: value for name, value in options.items() if value not in ("", [], {}) or name == "quote"}


def _options_of_last_version(request: SignedInRequest, dataset: str) -> dict[str, Any]:
    """Return the columns that the last version of a dataset was made from, so that the next one is read alike."""
    try:
        source = selectors.dataset_for(request.user, dataset).latest.source
    except LorasiteError:
        return {}
    columns = source.get("columns") or {}
    return {
        "text_columns": [*(columns.get("text") or [])],
        "label_columns": [*(columns.get("label") or [])],
        "split_column": columns.get("split") or "",
        "column_roles": {name: role for role in CHAT_ROLES for name in columns.get(role) or ()},
    }


def _lead_to(request: SignedInRequest, stored: Version | DataTask) -> HttpResponse:
    """Redirect to the new version, or to the task that makes it."""
    if isinstance(stored, DataTask):
        return redirect("datasets:task", stored.pk)
    message = _("Version %(number)s: %(rows)s rows are stored.")
    messages.success(request, message % {"number": stored.number, "rows": f"{stored.rows:,}"})
    return redirect("datasets:detail", name=stored.dataset.name)


def _render_preview(
    request: SignedInRequest,
    pending: uploads.PendingUpload,
    reading: upload_preview.Reading,
    form: PreviewForm,
    *,
    stores: bool,
) -> HttpResponse:
    status = 400 if stores and (form.errors or reading.problem) else 200
    if reading.problem:
        fields = [problem["field"] for problem in reading.problem.problems]
        field = next((name for name in fields if name in form.fields), None)
        form.errors.setdefault(field or "__all__", form.error_class()).append(str(reading.problem.message))
        status = reading.problem.status if stores else 200
    name = str(form["name"].value() or "")
    existing = selectors.datasets_for(request.user).filter(name=name).first()
    context = {
        "pending": pending,
        "form": form,
        "table": reading.table,
        "roles": [*zip(form.columns, form.role_fields(), strict=False)],
        "hidden_columns": max(0, len(form.columns) - SHOWN_COLUMNS),
        "total": reading.table.frame.height if reading.table else 0,
        "rows": upload_preview.first_rows(reading.table),
        "raw_lines": upload_preview.raw_lines(pending) if reading.table is None else [],
        "conversations": upload_preview.first_conversations(reading.rows),
        "labels": upload_preview.labels_of_first_rows(reading.rows),
        "alike": upload_preview.labels_that_look_alike(reading.rows),
        "notes": [*upload_preview.notes_on(reading)],
        "left_out": upload_preview.rows_left_out(reading),
        "kind": Version.Kind(reading.rows.kind).label if reading.rows else "",
        "existing": existing,
        "changes": upload_preview.changes_of_labels(existing, reading),
        "number": selectors.next_number(name),
    }
    template = "datasets_app/preview.html" + ("#reading" if request.htmx else "")
    return render(request, template, context, status=status)
