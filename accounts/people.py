"""Pages for administrators: list people, invite them, set limits, reset sign-ins, and close an account when somebody leaves."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from web.access import require_admin
from web.errors import InvalidError, LorasiteError, NotFoundError
from web.undo import offer_undo

from . import quotas, services, sharing, undo
from .forms import CloseForm, InviteForm, LimitsForm, RoleForm
from .http import SignedInRequest
from .models import Invitation, Role, User
from .permissions import may_manage_role, may_manage_sign_in

PER_PAGE = 50


@login_required
@never_cache
def people(request: SignedInRequest) -> HttpResponse:
    """List everybody with an account, and the open invitations; POST creates invitations and shows their links once."""
    require_admin(request.user)
    form = InviteForm(request.POST or None)
    invited: list[tuple[str, str]] = []  # notes and links
    if request.method == "POST" and form.is_valid():
        role = Role(form.cleaned_data["role"])
        created = services.invite_each(user=request.user, role=role, notes=form.cleaned_data["note"])
        for note, secret in created:
            link = secret and request.build_absolute_uri(reverse("accounts:join", args=[secret]))
            invited.append((note, link))
        form = InviteForm()
    users = User.objects.prefetch_related("groups").order_by("username")
    selected_role = request.GET.get("role", "")
    if selected_role in Role.values:
        users = with_role(users, Role(selected_role))
    search = request.GET.get("q", "")[:100]
    if search:
        users = users.filter(username__icontains=search) | users.filter(email__icontains=search)
    # Experiments belong to an app that imports this one, so they are counted by the name of the relation.
    users_with_runs = users.annotate(runs=Count("experiments"))
    page = Paginator(users_with_runs, PER_PAGE).get_page(request.GET.get("page"))
    shows_disk = "disk" in request.GET  # on demand: the files of everybody are counted on the disk
    context = {
        "page": page,
        "lines": [(person, quotas.usage_of(person, "storage") if shows_disk else None) for person in page],
        "shows_disk": shows_disk,
        "q": search,
        "selected_role": selected_role,
        "roles": Role,
        "form": form,
        "invited": invited,
        "invitations": Invitation.objects.filter(expires_at__gt=timezone.now()).select_related("invited_by"),
    }
    return render(request, "accounts/people.html", context, status=400 if form.errors else 200)


def with_role(users: QuerySet[User], role: Role) -> QuerySet[User]:
    """Return the people whose strongest role this is (see User.role)."""
    members_of = {name: Q(pk__in=User.objects.filter(groups__name=name).values("pk")) for name in Role}
    admin = Q(is_superuser=True) | members_of[Role.ADMIN]
    if role == Role.ADMIN:
        return users.filter(admin)
    if role == Role.MEMBER:
        return users.filter(members_of[Role.MEMBER]).exclude(admin)
    return users.exclude(admin | members_of[Role.MEMBER])


@login_required
@require_POST
def withdraw(request: SignedInRequest, pk: int) -> HttpResponse:
    """Withdraw an invitation; for administrators."""
    invitation = services.withdraw_invitation(user=request.user, pk=pk)
    message = _("Invitation withdrawn. Its link no longer works.")
    offer_undo(request, message, "invitation", **undo.describe_invitation(invitation))
    return redirect("accounts:people")


@login_required
@never_cache
def person(request: SignedInRequest, username: str = "", pk: int | None = None) -> HttpResponse:
    """Show one person, named by `username` or `pk`: role, usage, limits; POST carries out the action named by `do`."""
    require_admin(request.user)
    user = User.objects.filter(pk=pk).first() if pk is not None else User.objects.filter(username=username).first()
    if user is None:
        raise NotFoundError
    context: dict[str, Any] = {"limits": LimitsForm(instance=user), "close": CloseForm()}
    status = 200
    try:
        if request.method == "POST" and perform_action(request, user, context):
            return redirect(user.page)
    except LorasiteError as error:
        context["problem"] = error
        status = error.status
    usage = {kind: quotas.usage_of(user, kind) for kind in ("running", "queued", "storage")}
    active = User.objects.filter(is_active=True).prefetch_related("groups")
    context |= {
        "person": user,
        "roles": Role,
        "may_change_role": user != request.user and may_manage_role(request.user, user),
        "may_sign_in_as": may_manage_sign_in(request.user, user),
        "used": usage,
        "owned": sharing.count_owned_objects(user),
        "heirs": [other for other in active if other.can_create and other != user],
        "storage_mb": usage["storage"] // quotas.MIB,
    }
    return render(request, "accounts/person.html", context, status=status)


def perform_action(request: SignedInRequest, person: User, context: dict[str, Any]) -> bool:
    """Carry out what the form names in `do`, and return whether to redirect back to the person's page.

    If not, the page is rendered with what was added to its context: a form with errors, or a link that is shown once.
    """
    user = request.user
    match request.POST.get("do", ""):
        case "limits":
            form = LimitsForm(request.POST, instance=person)
            context["limits"] = form
            if not form.is_valid():
                return False
            services.set_limits(user=user, person=person, **form.cleaned_data)
            messages.success(request, _("Limits saved."))
        case "role":
            role_form = RoleForm(request.POST)
            if not role_form.is_valid():
                raise InvalidError(_("Choose a role."), field="role")
            services.assign_role(user=user, person=person, role=Role(role_form.cleaned_data["role"]))
            messages.success(request, _("Role changed."))
        case "link":
            context["link"] = request.build_absolute_uri(services.create_reset_link(user=user, person=person))
            return False
        case "close":
            moved = services.close_account(user=user, person=person, heir=_selected_heir(request))
            messages.success(request, _("Account closed. Objects handed over: %(count)s.") % {"count": moved})
        case "hand_over":
            # Without a selected heir the person themselves is passed, which hand_over refuses with an error.
            moved = sharing.hand_over(user=user, leaver=person, to=_selected_heir(request) or person)
            messages.success(request, _("Objects handed over: %(count)s.") % {"count": moved})
        case "second_factor":
            services.remove_second_factor(user=user, person=person)
            messages.success(request, _("Second factor removed. The password alone is enough to sign in."))
        case "reopen":
            services.reopen_account(user=user, person=person)
            messages.success(request, _("Account reopened."))
        case _:
            return False
    return True


def _selected_heir(request: SignedInRequest) -> User | None:
    """Return the person that the form names as the new owner, if any; a group cannot own objects.

    Raise InvalidError if nobody with an open account has this name.
    """
    name = request.POST.get("heir", "")
    if not name or name.startswith("group:"):
        return None
    heir = sharing.person_or_group(name)
    return heir if isinstance(heir, User) else None
