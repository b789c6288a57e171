"""Change the tags and the note of an object on its page, save views of a list, and choose how dense tables are."""

from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from accounts.http import SignedInRequest
from accounts.sharing import shared_models
from web.errors import InvalidError, NotFoundError
from web.requests import parse_whole_number

from . import services
from .models import Annotated
from .selectors import annotated_object
from .templatetags.annotations import annotation_context

DENSITY_COOKIE = "lorasite_density"
YEAR_S = 365 * 24 * 3600


@login_required
@require_POST
def tags(request: SignedInRequest, kind: str, name: str) -> HttpResponse:
    """Add a tag, or with `remove` take one away."""
    obj = annotated_object(request.user, kind, name)
    if removed := request.POST.get("remove"):
        services.remove_tag(user=request.user, obj=obj, name=removed)
        return render_annotations(request, obj, "tag", _("The tag is removed."))
    tag = request.POST.get("tag", "")
    return try_change(
        request, obj, "tag", lambda: services.add_tag(user=request.user, obj=obj, name=tag), _("The tag is added.")
    )


@login_required
@require_POST
def note(request: SignedInRequest, kind: str, name: str) -> HttpResponse:
    obj = annotated_object(request.user, kind, name)
    text = request.POST.get("note", "")
    return try_change(
        request, obj, "note", lambda: services.set_note(user=request.user, obj=obj, note=text), _("The note is saved.")
    )


@login_required
@require_POST
def density(request: SignedInRequest) -> HttpResponse:
    """Keep whether tables are compact in a cookie, so that it holds for this screen and no other."""
    page = request.POST.get("page", "")
    response = redirect(page if url_has_allowed_host_and_scheme(page, allowed_hosts=None) else "home")
    chosen = "compact" if request.POST.get("density") == "compact" else "comfortable"
    response.set_cookie(
        DENSITY_COOKIE, chosen, max_age=YEAR_S, samesite="Lax", secure=request.is_secure(), httponly=True
    )
    return response


@login_required
@require_POST
def saved_views(request: SignedInRequest, kind: str) -> HttpResponse:
    """Save the view of a list that `query` describes, or with `remove` remove one."""
    model = shared_models().get(kind)
    if model is None or not issubclass(model, Annotated):
        raise NotFoundError
    query = request.POST.get("query", "")
    if removed := request.POST.get("remove"):
        view = get_object_or_404(request.user.saved_views, kind=kind, pk=parse_whole_number(removed))
        services.remove_view(user=request.user, view=view)
        messages.success(request, _("The view “%(name)s” is removed.") % {"name": view.name})
    else:
        try:
            view = services.save_view(user=request.user, kind=kind, name=request.POST.get("name", ""), query=query)
            messages.success(request, _("The view is saved as “%(name)s”.") % {"name": view.name})
        except InvalidError as error:
            messages.error(request, str(error.message))
    return redirect(reverse(model.list_page) + (f"?{query}" if query else ""))


def try_change(
    request: SignedInRequest, obj: Annotated, field: str, change: Callable[[], None], message: str
) -> HttpResponse:
    """Do what a form asks for; an error of what was entered is shown beside it."""
    try:
        change()
    except InvalidError as error:
        return render_annotations(request, obj, field, str(error.message), refused=True)
    return render_annotations(request, obj, field, message)


def render_annotations(
    request: SignedInRequest, obj: Annotated, field: str, message: str, *, refused: bool = False
) -> HttpResponse:
    """Return the section with the message for htmx; else redirect to the object's page, which shows the message."""
    if not request.htmx:
        messages.add_message(request, messages.ERROR if refused else messages.SUCCESS, message)
        return redirect(obj)
    context = annotation_context(obj, manages=True) | {"focus": field, "refused": refused, "said": message}
    if refused:  # what was entered stays
        context["entered"] = {field: request.POST.get(field, "")}
    return render(request, "parts/annotations.html", context)
