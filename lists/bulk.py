"""Do something with all objects that are ticked in a list: tag, share, cancel, delete them, or take them away as CSV."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.http import SignedInRequest
from accounts.models import Removal, User
from accounts.permissions import get_visible, visible
from accounts.removals import show_removals
from accounts.sharing import find_recipients
from accounts.undo import PreviousShares, change_shares
from web.csv_lines import BOM, csv_line
from web.errors import InvalidError, LorasiteError
from web.undo import offer_undo

from . import services

MOST = 100  # objects at once
MOST_REFUSALS = 10  # that are told one by one

Perform = Callable[[User, Any], object]  # what it returns counts if it is a Removal, or PreviousShares


@dataclass(frozen=True)
class Outcome:
    """What became of one object; `refusal` says why nothing did, `result` is what the action returned."""

    name: str
    refusal: LorasiteError | None = None
    result: object = None


@dataclass(frozen=True)
class Action:
    perform: Perform
    done: Any  # "%(done)s deleted."
    partly: Any  # "%(done)s deleted, %(refused)s not:"


@dataclass(frozen=True)
class BulkList:
    """What can be done with the objects of a list."""

    objects: Callable[[], QuerySet[Any]]
    list_page: str  # names the page
    actions: Mapping[str, Action]
    cells: Mapping[str, Callable[[Any], object]]  # of a line of the CSV file, by the head of their column


def delete_action(perform: Perform) -> Action:
    return Action(perform, gettext_lazy("%(done)s deleted."), gettext_lazy("%(done)s deleted, %(refused)s not:"))


def share_action(to: str, level: str) -> Action:
    """Raise InvalidError for an unknown recipient, and for a level that only one object at a time is given."""
    if level not in ("none", "view", "manage"):
        raise InvalidError(_("Choose none, view or manage."), field="access")
    recipients = find_recipients(to)
    if level == "none":
        done, partly = (
            gettext_lazy("%(done)s no longer shared."),
            gettext_lazy("%(done)s no longer shared, %(refused)s not changed:"),
        )
    else:
        done, partly = gettext_lazy("%(done)s shared."), gettext_lazy("%(done)s shared, %(refused)s not:")
    return Action(lambda user, obj: change_shares(user=user, obj=obj, recipients=recipients, level=level), done, partly)


def attempt_each(user: User, objects: QuerySet[Any], names: Iterable[str], perform: Perform) -> list[Outcome]:
    """Do something with each object of these names that the person may manage; one that is refused stops no other."""
    outcomes = []
    for name in names:
        try:
            result = perform(user, get_visible(user, objects, manage=True, name=name))
        except LorasiteError as refusal:
            outcomes.append(Outcome(name, refusal))
        else:
            outcomes.append(Outcome(name, result=result))
    return outcomes


def respond(request: SignedInRequest, bulk: BulkList) -> HttpResponse:
    """Do what the form below a list asks for: `action` with each `name`, and say what was refused."""
    names = ticked_names(request)
    if not 1 <= len(names) <= MOST:
        messages.error(request, _("Select 1 to %(most)s rows first. Nothing was changed.") % {"most": MOST})
        return back_to_list(request, bulk)
    chosen = request.POST.get("action", "")
    if chosen == "export":
        return csv_file(request.user, bulk, names)
    if chosen == "share" and "access" not in request.POST:
        context = {"names": names, "query": request.POST.get("query", ""), "list_page": list_address(request, bulk)}
        return render(request, "lists/share.html", context)
    try:
        action = chosen_action(request, bulk)
    except InvalidError as error:
        messages.error(request, str(error.message))
        return back_to_list(request, bulk)
    outcomes = attempt_each(request.user, bulk.objects(), names, action.perform)
    report(request, action, outcomes)
    return back_to_list(request, bulk)


def chosen_action(request: SignedInRequest, bulk: BulkList) -> Action:
    """Return what `action` names; raise InvalidError if there is no such action, or if it lacks something."""
    sent = request.POST
    match sent.get("action", ""):
        case "tag":
            return Action(
                lambda user, obj: services.add_tag(user=user, obj=obj, name=sent.get("tag", "")),
                gettext_lazy("%(done)s tagged."),
                gettext_lazy("%(done)s tagged, %(refused)s not:"),
            )
        case "share":
            return share_action(sent.get("to", ""), sent["access"])
        case name if name in bulk.actions:
            return bulk.actions[name]
    raise InvalidError(_("Choose what to do with the selected rows. Nothing was changed."))


def ticked_names(request: SignedInRequest) -> list[str]:
    """Return the names of the ticked objects, each once, in their order."""
    return list(dict.fromkeys(request.POST.getlist("name")))


def back_to_list(request: SignedInRequest, bulk: BulkList) -> Any:
    return redirect(list_address(request, bulk))


def list_address(request: SignedInRequest, bulk: BulkList) -> str:
    """Return the address of the list as it was searched and sorted."""
    query = request.POST.get("query", "")
    return reverse(bulk.list_page) + (f"?{query}" if query else "")


def report(request: SignedInRequest, action: Action, outcomes: list[Outcome]) -> None:
    """Say how many objects it was done with, and of each other one why not; deletions and shares can be undone."""
    refused = [outcome for outcome in outcomes if outcome.refusal]
    message = (action.partly if refused else action.done) % {
        "done": len(outcomes) - len(refused),
        "refused": len(refused),
    }
    removals = [outcome.result for outcome in outcomes if isinstance(outcome.result, Removal)]
    shares = [asdict(outcome.result) for outcome in outcomes if isinstance(outcome.result, PreviousShares)]
    if removals:
        show_removals(request, removals, message)
    elif shares:
        offer_undo(request, message, "shares", shares=shares)
    else:
        messages.add_message(request, messages.WARNING if refused else messages.SUCCESS, message)
    for outcome in refused[:MOST_REFUSALS]:
        reason = outcome.refusal.message if outcome.refusal else ""
        messages.error(request, _("%(name)s: %(reason)s") % {"name": outcome.name, "reason": reason})
    if len(refused) > MOST_REFUSALS:
        messages.error(request, _("and %(more)s more") % {"more": len(refused) - MOST_REFUSALS})


def csv_file(user: User, bulk: BulkList, names: list[str]) -> HttpResponse:
    """Return the ticked objects that the person may see as a CSV file, a line each."""
    lines = [csv_line(bulk.cells)]
    for obj in visible(user, bulk.objects()).filter(name__in=names):
        lines.append(csv_line(read(obj) for read in bulk.cells.values()))
    filename = reverse(bulk.list_page).strip("/").replace("experiments", "runs") + ".csv"
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return HttpResponse(BOM + "".join(lines), content_type="text/csv; charset=utf-8", headers=headers)


def tag_names(obj: Any) -> str:
    """Return the tags of an object in one cell."""
    return ", ".join(tag.name for tag in obj.tags.all())
