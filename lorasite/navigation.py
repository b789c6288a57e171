"""The navigation around every page: where it leads, for whom, and which entry the current page belongs to."""

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from training.selectors import running_tasks

BAR = 5  # entries of the bar of a phone
MOST_COUNTED = 99  # runs in progress; the badge shows "99+" beyond


@dataclass(frozen=True)
class NavigationEntry:
    address: str  # name of the address that it leads to
    title: Promise
    icon: str  # id of a symbol in static/lorasite/icons.svg
    keys: str  # g and one of these letters go there; earlier releases had other letters, which still work
    views: tuple[str, ...]  # its pages: beginnings of view names; the longest that matches decides

    @property
    def href(self) -> str:
        return reverse(self.address)


OVERVIEW = NavigationEntry("home", _("Overview"), "overview", "o h", ("home",))
DATASETS = NavigationEntry("datasets:list", _("Datasets"), "datasets", "d", ("datasets:",))
TRAIN = NavigationEntry("training:new", _("Train"), "train", "t", ("training:",))
RUNS = NavigationEntry("experiments:list", _("Runs"), "runs", "r e", ("experiments:", "training:run"))
MODELS = NavigationEntry(
    "experiments:models",
    _("Models"),
    "models",
    "m",
    ("experiments:model", "experiments:register", "inference:recommend"),
)
PREDICT = NavigationEntry("inference:predict", _("Predict"), "predict", "p", ("inference:",))
CHAT = NavigationEntry("inference:chat", _("Chat"), "chat", "c", ("inference:chat",))
PEOPLE = NavigationEntry("accounts:people", _("People"), "people", "l", ("accounts:people", "accounts:person"))
AUDIT = NavigationEntry("audit:list", _("Audit"), "audit", "a", ("audit:",))
SYSTEM = NavigationEntry("monitoring:system", _("System"), "system", "s", ("monitoring:",))
CONSOLE = NavigationEntry("admin:index", _("Admin console"), "console", "x", ("admin:",))
WORK = (OVERVIEW, DATASETS, TRAIN, RUNS, MODELS, PREDICT, CHAT)
MENU_ONLY = (CHAT, MODELS)  # on a phone, as far as the bar has no room for them
ADMINISTRATION = (PEOPLE, AUDIT, SYSTEM, CONSOLE)


@dataclass(frozen=True)
class Navigation:
    """The entries that a person may open; `current` is the one that the page belongs to, if any."""

    work: tuple[NavigationEntry, ...]
    administration: tuple[NavigationEntry, ...]
    bottom: tuple[NavigationEntry, ...]  # the five in the bar of a phone; the others are in its menu
    current: NavigationEntry | None


def work_entries(user: User) -> tuple[NavigationEntry, ...]:
    return tuple(entry for entry in WORK if entry is not TRAIN or user.can_create)


def administration_entries(user: User) -> tuple[NavigationEntry, ...]:
    return ADMINISTRATION if user.is_admin else ()


def navigation_of(request: HttpRequest, user: User) -> Navigation:
    work = work_entries(user)
    in_menu = MENU_ONLY[: max(0, len(work) - BAR)]
    bottom = tuple(entry for entry in work if entry not in in_menu)
    return Navigation(work, administration_entries(user), bottom, current_entry(request))


def current_entry(request: HttpRequest) -> NavigationEntry | None:
    """Return the entry of the page's view; None for pages outside the navigation and for addresses that do not exist."""
    view_name = request.resolver_match.view_name if request.resolver_match else ""
    matches = [
        (len(prefix), entry)
        for entry in (*WORK, *ADMINISTRATION)
        for prefix in entry.views
        if view_name.startswith(prefix)
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None


def list_entry(request: HttpRequest, user: User) -> NavigationEntry | None:
    """Return the entry that an address belongs to, also one that does not exist; None if the person may not open it."""
    open_to_user = (*work_entries(user), *administration_entries(user))
    entry = current_entry(request)
    if entry is None:
        below = (entry for entry in open_to_user if entry is not OVERVIEW and request.path.startswith(entry.href))
        entry = next(below, None)
    return entry if entry is not OVERVIEW and entry in open_to_user else None


@dataclass(frozen=True)
class RunningBadge:
    """How many runs are queued or in progress, and where they can be watched."""

    count: int
    href: str

    @property
    def more(self) -> bool:
        return self.count > MOST_COUNTED

    @property
    def shown(self) -> int:
        return min(self.count, MOST_COUNTED)


def running_badge(user: User) -> RunningBadge:
    ids = list(running_tasks(user).order_by().values_list("pk", flat=True)[: MOST_COUNTED + 1])
    return RunningBadge(len(ids), reverse("training:run", args=ids) if len(ids) == 1 else reverse("home"))
