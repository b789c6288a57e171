"""Pages of one's own account: signing in, password, tokens, sessions; and coming in by invitation."""

from typing import Any

from allauth.account.utils import perform_login
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, views
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from audit.services import record
from web.errors import LorasiteError
from web.requests import address_of
from web.throttles import count

from . import quotas, services, sharing
from .forms import ForgottenForm, JoinForm, PasswordForm, SignInForm, TokenForm
from .permissions import owns
from .reset_links import ResetTokens


class SignIn(views.LoginView):
    template_name = "accounts/login.html"
    form_class = SignInForm
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        count(request, "login")
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        """The password was right; a second factor, where there is one, comes next."""
        redirect_url = self.get_success_url()
        return perform_login(self.request, form.get_user(), email_verification="none", redirect_url=redirect_url)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        shown = {"single_sign_on": settings.SINGLE_SIGN_ON, "oidc_name": _oidc_name()}
        return super().get_context_data(**kwargs) | shown


def _oidc_name() -> str:
    provider: Any = settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]
    return str(provider["APPS"][0]["name"])


class ChangePassword(views.PasswordChangeView):
    form_class = PasswordForm
    template_name = "accounts/password.html"
    success_url = reverse_lazy("home")

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, _("Your password is changed. Every other session and token of yours has ended."))
        return super().form_valid(form)


class ForgotPassword(views.PasswordResetView):
    template_name = "accounts/forgot.html"
    email_template_name, subject_template_name = "accounts/mail/reset.txt", "accounts/mail/reset_subject.txt"
    success_url = reverse_lazy("password_reset_done")
    token_generator = ResetTokens()
    extra_context = {"mail": not settings.EMAIL_BACKEND.endswith("dummy.EmailBackend")}

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        count(request, "login")
        return super().post(request, *args, **kwargs)


class NewPassword(views.PasswordResetConfirmView):
    template_name = "accounts/new_password.html"
    form_class = ForgottenForm
    success_url = reverse_lazy("accounts:login")
    token_generator = ResetTokens()

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, _("Your new password is set. Sign in with it."))
        return super().form_valid(form)


@login_required
@require_safe
def account(request: Any) -> HttpResponse:
    """Who I am here, what I use, and how I come in."""
    kinds = {"running": _("runs at once"), "queued": _("runs in the queue"), "storage": _("storage in MiB")}
    used = [_use(request.user, kind, words) for kind, words in kinds.items()]
    context = {"used": used, "owned": sharing.belongings(request.user), "second_factor": settings.SECOND_FACTOR}
    return render(request, "accounts/account.html", context)


def _use(user: Any, kind: str, words: str) -> dict[str, Any]:
    unit = quotas.MIB if kind == "storage" else 1
    most = quotas.limit(user, kind)
    return {"words": words, "used": -(-quotas.used(user, kind) // unit), "limit": most and most // unit}


@login_required
@never_cache
def tokens(request: Any) -> HttpResponse:
    """Personal API tokens: a new one's secret is on the page that answers, and nowhere else."""
    form = TokenForm(request.POST or None, user=request.user)
    context: dict[str, Any] = {"form": form, "tokens": request.user.api_tokens.all()}
    if request.method == "POST" and form.is_valid():
        try:
            context["made"], context["secret"] = services.make_token(user=request.user, **form.cleaned_data)
            context["form"] = TokenForm(user=request.user)
        except LorasiteError as error:
            form.take(error)
    return render(request, "accounts/tokens.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def end_token(request: Any, pk: int) -> HttpResponse:
    services.end_token(user=request.user, pk=pk)
    messages.success(request, _("The token has ended; whatever still sends it is refused."))
    return redirect("accounts:tokens")


@login_required
def sessions(request: Any) -> HttpResponse:
    """Where I am signed in; each session, or all others, can be ended."""
    found = UserSession.objects.purge_and_list(request.user)
    if request.method == "POST":
        here, asked = request.session.session_key, request.POST.get("session", "")
        ended = [s for s in found if s.session_key != here and asked in ("others", str(s.pk))]
        for session in ended:
            session.end()
        record("session.end", user=request.user, obj=request.user, sessions=len(ended))
        messages.success(request, _("Ended: %(count)s.") % {"count": len(ended)})
        return redirect("accounts:sessions")
    lines = [{"session": s, "here": s.session_key == request.session.session_key} for s in found]
    return render(request, "accounts/sessions.html", {"lines": lines, "address": address_of(request)})


@never_cache
def join(request: Any, secret: str) -> HttpResponse:
    """Make the account of an invitation, and sign in."""
    invitation = services.invitation_of(secret)
    form = JoinForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = services.join(secret=secret, **form.cleaned_data)
        except LorasiteError as error:
            form.take(error)
        else:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            return redirect("home")
    context = {"form": form, "role": invitation.get_role_display()}
    return render(request, "accounts/join.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def share(request: Any, kind: str, name: str) -> HttpResponse:
    """Set what somebody may do with an object, from the object's page."""
    obj = sharing.shared_object(request.user, kind, name)
    found, level = sharing.recipients(request.POST.get("to", "")), request.POST.get("access", "")
    for to in found:
        sharing.give(user=request.user, obj=obj, to=to, level=level)
    said = {"name": found[0] if len(found) == 1 else _("everyone"), "how": sharing.LEVELS[level]}
    messages.success(request, _("Shared with %(name)s: %(how)s.") % said)
    still = owns(request.user, obj) or sharing.can_see(request.user, obj)
    return redirect(obj if still else "home")
