"""Pages for admins: who is here, inviting, limits, and what happens when somebody leaves."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts.permissions import may_manage_sign_in
from web.access import require_admin
from web.errors import LorasiteError, NotFound

from . import quotas, services, sharing
from .forms import CloseForm, InviteForm, LimitsForm
from .models import Invitation, Role, User

PER_PAGE = 50


@login_required
@never_cache
def people(request: Any) -> HttpResponse:
    """Everybody with an account, and the invitations that are open; POST invites."""
    require_admin(request.user)
    form = InviteForm(request.POST or None)
    link = ""
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        _invitation, secret = services.invite(user=request.user, role=Role(given["role"]), note=given["note"])
        link, form = request.build_absolute_uri(reverse("accounts:join", args=[secret])), InviteForm()
    found = User.objects.prefetch_related("groups").order_by("username")
    if words := request.GET.get("q", "")[:100]:
        found = found.filter(username__icontains=words) | found.filter(email__icontains=words)
    context = {
        "page": Paginator(found, PER_PAGE).get_page(request.GET.get("page")),
        "q": words,
        "form": form,
        "link": link,
        "invitations": Invitation.objects.filter(expires_at__gt=timezone.now()).select_related("invited_by"),
    }
    return render(request, "accounts/people.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def withdraw(request: Any, pk: int) -> HttpResponse:
    services.withdraw(user=request.user, pk=pk)
    messages.success(request, _("The invitation is taken back; its link no longer works."))
    return redirect("accounts:people")


@login_required
@never_cache
def person(request: Any, **lookup: Any) -> HttpResponse:
    """One person, by `username` or `pk`: role, use and limits; `do` is limits, link, close, reopen, hand_over or second_factor."""
    require_admin(request.user)
    found = User.objects.filter(**lookup).first()
    if found is None:
        raise NotFound
    context: dict[str, Any] = {"limits": LimitsForm(instance=found), "close": CloseForm()}
    do = _ACTIONS.get(request.POST.get("do", ""))
    try:
        if request.method == "POST" and do and do(request, found, context):
            return redirect(found.page)
    except LorasiteError as error:
        context["problem"] = error
    used = {kind: quotas.used(found, kind) for kind in ("running", "queued", "storage")}
    owned = sharing.belongings(found)
    heirs = [u for u in User.objects.filter(is_active=True).prefetch_related("groups") if u.can_create and u != found]
    context |= {
        "person": found,
        "may_sign_in_as": may_manage_sign_in(request.user, found),
        "used": used,
        "owned": owned,
        "heirs": heirs,
        "storage_mb": used["storage"] // quotas.MIB,
    }
    status = context["problem"].status if "problem" in context else 200
    return render(request, "accounts/person.html", context, status=status)


def _limits(request: Any, found: User, context: dict[str, Any]) -> bool:
    form = context["limits"] = LimitsForm(request.POST, instance=found)
    if not form.is_valid():
        return False
    services.set_limits(user=request.user, person=found, **form.cleaned_data)
    messages.success(request, _("The limits are set."))
    return True


def _link(request: Any, found: User, context: dict[str, Any]) -> bool:
    context["link"] = request.build_absolute_uri(services.reset_link(user=request.user, person=found))
    return False


def _close(request: Any, found: User, context: dict[str, Any]) -> bool:
    moved = services.close(user=request.user, person=found, heir=_heir(request))
    messages.success(request, _("The account is closed. Handed over: %(count)s.") % {"count": moved})
    return True


def _hand_over(request: Any, found: User, context: dict[str, Any]) -> bool:
    moved = sharing.hand_over(user=request.user, leaver=found, to=_heir(request) or found)
    messages.success(request, _("Handed over: %(count)s.") % {"count": moved})
    return True


def _second_factor(request: Any, found: User, context: dict[str, Any]) -> bool:
    services.remove_second_factor(user=request.user, person=found)
    messages.success(request, _("The second factor is removed; the password alone signs in."))
    return True


def _reopen(request: Any, found: User, context: dict[str, Any]) -> bool:
    services.reopen(user=request.user, person=found)
    messages.success(request, _("The account is open again."))
    return True


def _heir(request: Any) -> User | None:
    name = request.POST.get("heir", "")
    found = sharing.person_or_group(name) if name and not name.startswith("group:") else None
    return found if isinstance(found, User) else None


_ACTIONS = {
    "limits": _limits,
    "link": _link,
    "close": _close,
    "hand_over": _hand_over,
    "reopen": _reopen,
    "second_factor": _second_factor,
}
