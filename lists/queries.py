"""What the address of a list says: the words it is searched by, its filters, its order and its columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

from django.core.paginator import Page, Paginator
from django.db.models import F, Model, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from accounts.http import SignedInRequest
from accounts.models import User
from accounts.permissions import visible
from engine.names import normalise_name
from web.errors import InvalidError

M = TypeVar("M", bound=Model)
MOST_WORDS = 20  # each is a condition of the query
View = Callable[..., HttpResponse]


def read_filters(query: QueryDict, names: Iterable[str]) -> dict[str, str]:
    """Return the value of each filter in an address or a request, empty where it has none."""
    return {name: query.get(name, "") for name in names}


def search_words(text: str) -> list[str]:
    """Return the words of a search in the form that names are stored in."""
    return normalise_name(text).split()[:MOST_WORDS]


def require_one_of(value: str, allowed: Iterable[str], field: str) -> None:
    """Raise InvalidError, which lists the allowed values, unless `value` is one of them."""
    if value in allowed:
        return
    listed = ", ".join(name for name in allowed if name)  # "" stands for no filter and has no name
    message = _("%(field)s is one of: %(listed)s.") % {"field": field, "listed": listed}
    raise InvalidError(message, field=field)


def sort_rows(rows: QuerySet[M], sort: str, fields: Mapping[str, str]) -> QuerySet[M]:
    """Sort by one of `fields` ("-rows": descending), rows without a value last; raise InvalidError for any other."""
    key = sort.removeprefix("-")
    require_one_of(key, fields, "sort")
    # Both keys in one direction, so that one index serves them.
    column = F(fields[key])
    if sort.startswith("-"):
        return rows.order_by(column.desc(nulls_last=True), "-pk")
    return rows.order_by(column.asc(nulls_last=True), "pk")


def lean_query(query: QueryDict, usual: Mapping[str, Sequence[str]], without: Sequence[str] = ()) -> QueryDict:
    """Return a query without what is empty, and without values that hold anyway (`usual`)."""
    lean = QueryDict(mutable=True)
    for name, values in query.lists():
        filled = [value for value in values if value]
        if filled and name not in without and filled != list(usual.get(name, ())):
            lean.setlist(name, filled)
    return lean


def lean_address(**usual: Sequence[str]) -> Callable[[View], View]:
    """Decorate the view of a list: an address that says more than it needs, as any form's does, redirects to a lean one."""

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            lean = lean_query(request.GET, usual)
            if lean == request.GET:
                return view(request, *args, **kwargs)
            address = f"{request.path}?{lean.urlencode()}" if lean else request.path
            return redirect(address)

        return wrapped

    return decorate


def page_of(request: HttpRequest, rows: QuerySet[M], size: int) -> Page[M]:
    """Return the page of a list that the address asks for, or the nearest one that there is."""
    return Paginator(rows, size).get_page(request.GET.get("page"))


def may_change(user: User, page: Page[Any]) -> bool:
    """Return whether the bar of ticked rows offers to change them: to people who own things, or manage one of this page."""
    if user.can_create or not page:
        return user.can_create
    rows = type(page[0])._default_manager.filter(pk__in=[row.pk for row in page])
    return visible(user, rows, manage=True).exists()


def render_list(request: SignedInRequest, template: str, context: dict[str, Any], *, kind: str) -> HttpResponse:
    """Render a list, or for htmx the partial `rows` alone. The view varies on HX-Request. kind: of its objects."""
    query = context["query"]
    views = list(request.user.saved_views.filter(kind=kind))
    current = lean_query(request.GET, {}, without=("page",)).urlencode()
    context |= {
        "kind": kind,
        "filtered": any(value for name, value in query.items() if name != "sort"),
        "address": request.path,
        "views": views,
        "current": current,
        "may_change": may_change(request.user, context["page"]),
        "is_saved": not current or current in {view.query for view in views},
    }
    swapped = request.htmx and not request.htmx.history_restore_request
    return render(request, f"{template}#rows" if swapped else template, context | {"swapped": swapped})
