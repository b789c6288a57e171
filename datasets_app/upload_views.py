"""Pages: upload a file, check how it is read, correct it, store it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from datasets_app import reading_descriptions, selectors, services
from datasets_app.reading import hub, uploads
from datasets_app.reading.options import column_options, file_options
from datasets_app.versions.upload_storage import key_of_page, stored_by_page
from engine.names import LONGEST_NAME
from web.errors import ConflictError, InvalidError, LorasiteError, NotFoundError
from web.throttles import throttle_posts

from .forms import SHOWN_COLUMNS, HubForm, PreviewForm, UploadForm, roles_of, typed_character
from .models import DataTask, Version

if TYPE_CHECKING:
    from datasets_app.reading.columns import ColumnChoice
    from datasets_app.reading.rows import Rows
    from datasets_app.reading.table import Table
    from datasets_app.versions.creation import StoreOptions

PREVIEW_ROWS = 20
SHOWN_LABELS = 30
RAW_LINES = 12
_CORRECTABLE = ("encoding", "delimiter", "quote", "header", "skip_lines", "sheet")  # fields of the preview
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
            _read_head(pending, {})
        except LorasiteError as error:
            if pending and is_correctable(error):
                return redirect("datasets:preview", pending.token)
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


def is_correctable(error: LorasiteError) -> bool:
    """Return whether other settings of the preview may help."""
    return any(problem["field"] in _CORRECTABLE for problem in error.problems)


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


def _read_head(pending: uploads.PendingUpload, options: dict[str, Any]) -> "Table":
    """Read the first rows of an upload."""
    from datasets_app.reading import sandbox

    return sandbox.read(
        pending.file,
        pending.filename,
        head=True,
        limit=settings.UPLOAD_LIMIT,
        options=file_options(options),
        seconds=sandbox.QUICK_SECONDS,
    )


# --- step two --------------------------------------------------------------------------------------------------------


@dataclass
class Reading:
    """An upload as it is read with a person's options."""

    options: dict[str, Any]
    table: "Table | None" = None
    choice: "ColumnChoice | None" = None
    rows: "Rows | None" = None
    problem: InvalidError | ConflictError | None = None


@login_required
@vary_on_headers("HX-Request")
def preview(request: SignedInRequest, token: str) -> HttpResponse:
    """Step two: show the first rows as they are read, let the person correct the guesses, and store the version."""
    require_creator(request.user)
    stores = request.method == "POST" and "again" not in request.POST
    if stores and (stored := stored_by_page(request.user, token)):
        return _lead_to(request, stored)  # the button was pressed twice
    pending = uploads.pending_for(request.user, token)
    options, name = _options_of(request)
    reading = _read(pending, options)
    data = {**request.POST.dict(), **_current_roles(reading)} if request.method == "POST" else None
    initial = {**options, "name": name or request.GET.get("dataset") or _name_from(pending.filename)}
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
    }


def _read(pending: uploads.PendingUpload, options: dict[str, Any]) -> Reading:
    """Read the first rows with the person's options, and without what does not fit."""
    from datasets_app.reading import columns, rows  # imports polars, which takes half a second

    reading = Reading(options)
    try:
        reading.table = _read_head(pending, options)
    except InvalidError as error:
        if not is_correctable(error):
            raise
        reading.problem = error
        return reading
    names = {*reading.table.columns}
    for name in ("text_columns", "label_columns"):  # other settings of the file may have renamed the columns
        options[name] = [column for column in options.get(name, []) if column in names]
    for name in ("text_pair_column", "split_column"):
        options[name] = options.get(name, "") if options.get(name) in names else ""
    for name in [name for name, value in options.items() if value in ("", []) and name != "quote"]:
        del options[name]
    try:
        reading.choice = columns.choose_columns(reading.table, column_options(options))
        reading.rows = rows.select_rows(reading.table, reading.choice)
    except InvalidError as error:
        reading.problem = error
        reading.choice = reading.choice or _nearest_choice(reading.table, options)
    return reading


def _nearest_choice(table: "Table", options: dict[str, Any]) -> "ColumnChoice":
    """Return what to show of a choice that does not fit: its split column with values to explain, else the guess."""
    from datasets_app.reading import columns

    split = options.get("split_column") or None
    if split is None:
        return columns.guess(table)
    without_split = {name: value for name, value in options.items() if not name.startswith("split_")}
    try:
        choice = columns.choose_columns(table, column_options(without_split))
    except InvalidError:
        choice = columns.guess(table)
    return replace(choice, split=split, split_values=options.get("split_values", {}))


def _current_roles(reading: Reading) -> dict[str, str]:
    """Return the fields of the columns as they are now."""
    if reading.table is None:
        return {}
    roles = roles_of(reading.choice)
    return {f"role_{i}": roles.get(name, "") for i, name in enumerate(reading.table.columns[:SHOWN_COLUMNS])}


def _name_from(filename: str) -> str:
    """Return a name for the dataset by that of the file."""
    stem = re.sub(_SUFFIXES, "", filename.lower())
    return re.sub(r"[^a-z0-9._-]+|\.{2,}", "-", stem)[:LONGEST_NAME].strip("-._")


def _lead_to(request: SignedInRequest, stored: Version | DataTask) -> HttpResponse:
    """Redirect to the new version, or to the task that makes it."""
    if isinstance(stored, DataTask):
        return redirect("datasets:task", stored.pk)
    message = _("Version %(number)s: %(rows)s rows are stored.")
    messages.success(request, message % {"number": stored.number, "rows": f"{stored.rows:,}"})
    return redirect("datasets:detail", name=stored.dataset.name)


def _render_preview(
    request: SignedInRequest, pending: uploads.PendingUpload, reading: Reading, form: PreviewForm, *, stores: bool
) -> HttpResponse:
    status = 400 if stores and (form.errors or reading.problem) else 200
    if reading.problem:
        fields = [problem["field"] for problem in reading.problem.problems]
        field = next((name for name in fields if name in form.fields), None)
        form.errors.setdefault(field or "__all__", form.error_class()).append(str(reading.problem.message))
        status = reading.problem.status if stores else 200
    name = str(form["name"].value() or "")
    existing = selectors.datasets_for(request.user).filter(name=name).first() if name.isascii() else None
    context = {
        "pending": pending,
        "form": form,
        "table": reading.table,
        "roles": [*zip(form.columns, form.role_fields(), strict=False)],
        "hidden_columns": max(0, len(form.columns) - SHOWN_COLUMNS),
        "total": reading.table.frame.height if reading.table else 0,
        "rows": _first_rows(reading.table),
        "raw_lines": _raw_lines(pending) if reading.table is None else [],
        "labels": _labels(reading.rows),
        "alike": _alike(reading.rows),
        "notes": [*_notes(reading)],
        "left_out": _left_out(reading),
        "kind": Version.Kind(reading.rows.kind).label if reading.rows else "",
        "existing": existing,
        "changes": _changes(existing, reading),
        "number": selectors.next_number(name),
    }
    template = "datasets_app/preview.html" + ("#reading" if request.htmx else "")
    return render(request, template, context, status=status)


def _first_rows(table: "Table | None") -> list[list[str]]:
    if table is None:
        return []
    rows = table.frame.head(PREVIEW_ROWS).select(table.columns[:SHOWN_COLUMNS])
    return [[str(value)[:200] for value in row] for row in rows.iter_rows()]


def _raw_lines(pending: uploads.PendingUpload) -> list[str]:
    """Return the first lines as they stand in a file that could not be read."""
    with open(pending.file, "rb") as file:
        lines = file.read(20_000).decode("utf-8", "replace").splitlines()
    return [line[:200] for line in lines[:RAW_LINES]]


def _labels(rows: "Rows | None") -> list[tuple[str, int]]:
    """Return the labels of the first rows and how many rows have each."""
    if rows is None or rows.frame.is_empty():
        return []
    from datasets_app.reading.rows import count_labels

    return [*count_labels(rows.frame["label"], rows.kind).items()][:SHOWN_LABELS]


def _alike(rows: "Rows | None") -> list[str]:
    """Return the labels that look like others, group by group; the groups can be merged."""
    if rows is None or rows.kind != Version.Kind.LABELS or rows.frame.is_empty():
        return []
    from datasets_app.checks.labels import similar_labels
    from datasets_app.reading.rows import count_labels

    groups = similar_labels(count_labels(rows.frame["label"], rows.kind))
    return [" = ".join(group[:5]) for group in groups[:5]]


def _notes(reading: Reading) -> Iterator[str]:
    """Yield what a person should know before storing the rows."""
    if reading.table is None or reading.choice is None:
        return
    from datasets_app.reading import columns

    notes = [*reading.table.notes, *(reading.rows.notes if reading.rows else [])]
    notes += [*columns.notes_on_choice(reading.table, reading.choice)]
    for note in notes:
        yield reading_descriptions.describe_note(note)
    label = reading.choice.label
    is_chosen = reading.options.get("label_columns") or reading.table.label
    if label and not is_chosen and not columns.is_named(label, columns.LABEL_NAMES):
        yield _("The label column was guessed from its content; check that it is the right one.")


def _left_out(reading: Reading) -> list[tuple[str, int]]:
    """Return why rows were left out, and how many."""
    counts = reading.rows.left_out if reading.rows else {}
    return [(reading_descriptions.describe_reason(reason), count) for reason, count in counts.items()]


def _changes(existing: Any, reading: Reading) -> dict[str, list[str]]:
    """Return the labels that the newest version of the dataset lacks, and those that only it has."""
    if existing is None or reading.rows is None or not existing.versions.all():
        return {}
    before = {*existing.latest.labels}
    now = {label for label, _count in _labels(reading.rows)}
    is_whole = reading.table is not None and reading.table.complete and len(now) < SHOWN_LABELS
    return {"new": sorted(now - before), "missing": sorted(before - now) if is_whole else []}
