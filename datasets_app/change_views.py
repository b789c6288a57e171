"""Pages that make a new version (fixes and edits), count tokens, and compare two versions."""

import re
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.http import SignedInRequest
from datasets_app import descriptions, selectors, services
from datasets_app.checks import text_statistics
from datasets_app.conversations import with_contents, with_summaries
from datasets_app.report_page import FINDINGS, chosen_template, tab_address
from datasets_app.review import draft
from datasets_app.versions import changes, diff
from datasets_app.versions.text_marks import mark_changes
from engine.config_sections import SAMPLE_MODEL
from engine.errors import EngineError
from engine.models.plain_templates import USUAL
from web.errors import ConflictError, InvalidError
from web.requests import parse_whole_number
from web.sentences import translate

from .models import DataTask, Version


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def fix(request: SignedInRequest, name: str) -> HttpResponse:
    """Show what fixes of several findings would do (GET), or make the version that has them: `code` for one, else `codes`."""
    if request.method != "POST":
        return preview_fixes(request, name)
    code = request.POST.get("code")
    codes = [code] if code is not None else request.POST.getlist("codes")
    change = {"code": codes[0]} if len(codes) == 1 else {"codes": codes or [""]}
    return make_version(request, name, {"did": "fix", **change})


def preview_fixes(request: SignedInRequest, name: str) -> HttpResponse:
    """Show how many rows each of the chosen fixes would change or drop, with examples; nothing is stored."""
    dataset = selectors.dataset_for(request.user, name, manage=True)
    version = selectors.version_of(dataset, request.GET.get("version"))
    codes = request.GET.getlist("codes")
    if not changes.codes_in_order(codes):
        messages.info(request, _("Select the findings to fix first."))
        return redirect(tab_address(version, FINDINGS))
    context: dict[str, Any] = {"dataset": dataset, "version": version, "codes": codes}
    try:
        context |= describe_effects(version, changes.preview_fixes(version, codes))
    except ConflictError as error:
        context["no_preview"] = error.message
    return render(request, "datasets_app/fixes.html", context)


def describe_effects(version: Version, effects: list[changes.FixEffect]) -> dict[str, Any]:
    """Return the effects of some fixes with their titles, and what they come to together."""
    shown = [effect.summarised() for effect in effects] if version.is_chat else effects
    dropped = sum(effect.dropped_count for effect in effects)
    return {
        "effects": [
            (descriptions.finding_title(effect.code), descriptions.FIX_NOTES.get(effect.code, ""), effect)
            for effect in shown
        ],
        "rows_left": version.rows - dropped,
        "changes_nothing": not dropped and not any(effect.rewritten_count for effect in effects),
    }


@login_required
@require_POST
def rename_labels(request: SignedInRequest, name: str) -> HttpResponse:
    """Rename labels in a new version; several, or one that gets the name of another, become one label."""
    labels, new_name = request.POST.getlist("labels"), request.POST.get("to", "").strip()
    if not labels or not new_name:
        messages.error(request, _("Select at least one label, and enter its new name."))
        version = managed_version(request, name)
        return redirect(f"{reverse('datasets:detail', args=[name])}?version={version.number}#labels-title")
    change = {"label": labels[0]} if len(labels) == 1 else {"labels": labels}
    return make_version(request, name, {"did": "rename", **change, "to": new_name[: changes.LONGEST_LABEL]})


@login_required
@require_POST
def edit(request: SignedInRequest, name: str) -> HttpResponse:
    """Edit or drop one row: in a new version, or with `draft` in the draft of the person who asks."""
    row = request.POST.get("row", "")
    if parse_whole_number(row) is None:
        raise InvalidError(_("The row must be a number."), field="row")
    cells = None  # drops the row
    if "drop" not in request.POST:
        text = request.POST.get("text", "")
        # The messages of a conversation have fields of their own, `turn_<number>`.
        turns = {
            int(field.removeprefix("turn_")): str(request.POST.get(field))
            for field in request.POST
            if re.fullmatch(r"turn_\d{1,4}", field)
        }
        text = with_contents(text, turns) if turns else text
        cells = {"text": text, "label": request.POST.get("label", "")}
    if "draft" in request.POST:
        return put_into_draft(request, name, int(row), cells)
    return make_version(request, name, {"did": "edit", "rows": {row: cells}})


def put_into_draft(request: SignedInRequest, name: str, row: int, cells: dict[str, str] | None) -> HttpResponse:
    """Keep the change of a row in the draft, and return to the rows."""
    version = managed_version(request, name)
    sent = QueryDict(request.POST.get("query", "")[:2000])  # the search and filters of the rows
    filters = {key: sent[key] for key in ("q", "label", "split", "page") if sent.get(key)}
    query = urlencode({"version": version.number, **filters})
    rows = f"{reverse('datasets:rows', args=[name])}?{query}"
    try:
        kept = draft.put(user=request.user, version=version, row=row, cells=cells)
    except InvalidError as error:
        messages.error(request, str(error.message))
        return redirect(f"{rows}&edit={row}#edit")
    if kept:
        messages.success(request, _("Row %(row)s is in your draft.") % {"row": row})
    else:
        messages.info(request, _("Row %(row)s stays as it is.") % {"row": row})
    return redirect(f"{rows}#row-{row}")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def show_draft(request: SignedInRequest, name: str) -> HttpResponse:
    """Show the draft of a version; take a row out of it (`remove`), `discard` it, or `save` it as the next version."""
    dataset = selectors.dataset_for(request.user, name, manage=True)
    version = selectors.version_of(dataset, request.GET.get("version") or request.POST.get("version"))
    if request.method != "POST":
        rows = draft.list_rows(request.user, version)
        return render(request, "datasets_app/draft.html", {"dataset": dataset, "version": version, "rows": rows})
    page = f"{reverse('datasets:draft', args=[name])}?version={version.number}"
    if "save" not in request.POST:
        row = parse_whole_number(request.POST.get("remove", ""))
        draft.discard(user=request.user, version=version, row=row)
        return redirect(page)
    try:
        return redirect_to_result(request, draft.save(user=request.user, version=version))
    except (ConflictError, InvalidError) as error:
        messages.error(request, str(error.message))
        return redirect(page)


def make_version(request: SignedInRequest, name: str, change: dict[str, Any]) -> HttpResponse:
    """Apply a change and redirect to the new version, or to the task that makes it; show an error on the report."""
    version = managed_version(request, name)
    try:
        made = changes.make_version(user=request.user, version=version, change=change)
    except (ConflictError, InvalidError) as error:
        messages.error(request, str(error.message))
        return redirect(f"{reverse('datasets:detail', args=[name])}?version={version.number}")
    return redirect_to_result(request, made)


def redirect_to_result(request: SignedInRequest, made: Version | DataTask) -> HttpResponse:
    """Redirect to a new version with a message that says what changed, or to the task that makes it."""
    if isinstance(made, DataTask):
        return redirect("datasets:task", made.pk)
    message = _("Version %(number)s was made: %(what)s.")
    messages.success(request, message % {"number": made.number, "what": descriptions.describe_change(made.change)})
    address = reverse("datasets:detail", args=[made.dataset.name])
    return redirect(f"{address}?tab={FINDINGS}" if made.change["did"] == "fix" else address)


def managed_version(request: SignedInRequest, name: str) -> Version:
    """Return the version that a form names in `version`; without one, the newest.

    Raise NotFoundError or NotAllowedError if the person may not change the dataset.
    """
    dataset = selectors.dataset_for(request.user, name, manage=True)
    return selectors.version_of(dataset, request.POST.get("version"))


@login_required
@require_POST
def tokens(request: SignedInRequest, name: str) -> HttpResponse:
    """Count the tokens with the base model that the form names, at once or by a task."""
    version = managed_version(request, name)
    report = reverse("datasets:detail", args=[name])
    model = request.POST.get("model", "").strip().replace("\x00", "")[:200] or SAMPLE_MODEL
    chat_template = chosen_template(request.POST)
    if text_statistics.token_lengths(version, model, chat_template) is None:
        try:
            task = services.count_tokens(user=request.user, version=version, model=model, chat_template=chat_template)
        except EngineError as error:
            messages.error(request, translate(error.message))
            return redirect(f"{report}?version={version.number}")
        if task:
            return redirect("datasets:task", task.pk)
    query = {"version": version.number, "model": model, "max_length": request.POST.get("max_length", "")}
    if chat_template != USUAL:
        query["chat_template"] = chat_template
    return redirect(f"{report}?{urlencode(query)}#tokens-title")


@login_required
@require_safe
def compare(request: SignedInRequest, name: str) -> HttpResponse:
    """Compare two versions: rows added, dropped, relabelled and rewritten.

    `new` is by default the newest, `old` the one that `new` was made of.
    """
    dataset = selectors.dataset_for(request.user, name)
    new = selectors.version_of(dataset, request.GET.get("new"))
    before = new.parent or new
    old = selectors.version_of(dataset, request.GET.get("old") or before.number)
    steps = diff.steps_between(old, new)
    context = {"dataset": dataset, "old": old, "new": new, "steps": steps, **diff.compare_versions(old, new)}
    for change in context["changes"]:
        if new.is_chat and old.is_chat:
            change["examples"] = [with_summaries(row) for row in change["examples"]]
        describe_examples(change, steps)
    return render(request, "datasets_app/compare.html", context)


def describe_examples(change: dict[str, Any], steps: list[Version]) -> None:
    """Add to the rows of a change what the page shows: the marked texts, and the step that removed a row."""
    examples = change["examples"]
    if change["kind"] == "rewritten":
        for row in examples:
            row["pieces"] = mark_changes(row["text"], row["text_new"])
    if change["kind"] == "dropped":
        removals = diff.find_removals(steps, [row["row"] for row in examples])
        for row in examples:
            row["removed_by"] = removals.get(row["row"])
