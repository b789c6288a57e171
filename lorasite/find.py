"""One search over pages, actions and what people have made: a page of its own, which Ctrl+K opens over any other."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from accounts.http import SignedInRequest
from accounts.models import User
from accounts.permissions import visible
from datasets_app.models import Dataset
from engine.names import normalise_name
from experiments.models import Experiment, RegisteredModel
from lorasite.navigation import administration_entries, work_entries

M = TypeVar("M", Dataset, Experiment, RegisteredModel)
MOST = 6  # of each kind
LONGEST = 100  # characters of what is searched for


@dataclass(frozen=True, slots=True)
class Match:
    title: str
    href: str


@dataclass(frozen=True, slots=True)
class MatchGroup:
    title: str
    matches: list[Match]


@dataclass(frozen=True, slots=True)
class Action:
    title: Promise
    address: str
    for_creators: bool = False


ACTIONS = (
    Action(gettext_lazy("Add data"), "datasets:new", for_creators=True),
    Action(gettext_lazy("Your account"), "accounts:account"),
    Action(gettext_lazy("API documentation"), "api-docs"),
)


@login_required
@require_GET
@vary_on_headers("HX-Request")
def find_page(request: SignedInRequest) -> HttpResponse:
    """Show what matches `q`; for the palette only the list."""
    text = request.GET.get("q", "").strip()[:LONGEST]
    context = {"q": text, "groups": find(request.user, text)}
    return render(request, "find.html#options" if request.htmx else "find.html", context)


def find(user: User, text: str) -> list[MatchGroup]:
    """Return the pages, actions and objects whose names contain the text, those that a person may open; newest first."""
    groups = [
        MatchGroup(_("Pages"), pages(user, text)),
        MatchGroup(_("Actions"), actions(user, text)),
        MatchGroup(_("Datasets"), named(user, Dataset.objects.order_by("-pk"), text, "datasets:detail")),
        MatchGroup(_("Runs"), named(user, Experiment.objects.order_by("-pk"), text, "experiments:detail")),
        MatchGroup(_("Models"), named(user, RegisteredModel.objects.order_by("-pk"), text, "experiments:model")),
    ]
    if user.is_admin:
        groups.append(MatchGroup(_("People"), people(text)))
    return [group for group in groups if group.matches]


def pages(user: User, text: str) -> list[Match]:
    entries = (*work_entries(user), *administration_entries(user))
    return matching(text, ((str(entry.title), entry.href) for entry in entries))


def actions(user: User, text: str) -> list[Match]:
    allowed = (action for action in ACTIONS if user.can_create or not action.for_creators)
    return matching(text, ((str(action.title), reverse(action.address)) for action in allowed))


def matching(text: str, links: Iterable[tuple[str, str]]) -> list[Match]:
    return [Match(title, href) for title, href in links if folded(text) in folded(title)]


def folded(text: str) -> str:
    """Return a text without differences of case, width and composition."""
    return unicodedata.normalize("NFKC", text).casefold()


def named(user: User, objects: QuerySet[M], text: str, address: str) -> list[Match]:
    names = visible(user, objects).filter(name__icontains=normalise_name(text)).values_list("name", flat=True)
    return [Match(name, reverse(address, args=[name])) for name in names[:MOST]]


def people(text: str) -> list[Match]:
    if not text:  # a list of everybody is on the page of the people
        return []
    users = User.objects.filter(username__icontains=text).order_by("username")[:MOST]
    return [Match(user.username, user.page) for user in users]
