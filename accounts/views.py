"""Pages of one's own account (signing in, password, tokens, sessions), joining by invitation, and sharing an object."""

from dataclasses import asdict
from typing import Any

from allauth.account.utils import perform_login
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, views
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.messages.views import SuccessMessageMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from audit.services import record
from web.errors import InvalidError, LorasiteError, NotFoundError
from web.mail import mail_is_configured
from web.throttles import throttle_posts
from web.undo import offer_undo

from . import quotas, services, sharing, undo
from .browsers import browser_name
from .forms import ForgottenForm, JoinForm, PasswordForm, SignInForm, TokenForm
from .http import SignedInRequest
from .permissions import visible
from .reset_links import ResetTokens


@method_decorator(throttle_posts("login"), name="post")
class SignIn(views.LoginView):
    template_name = "accounts/login.html"
    form_class = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Sign in after a correct password; allauth asks for the second factor first if there is one."""
        redirect_url = self.get_success_url()
        return perform_login(self.request, form.get_user(), email_verification="none", redirect_url=redirect_url)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the button of the single sign-on provider. Settings are read per request, so that tests can change them."""
        provider: Any = settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]
        context = super().get_context_data(**kwargs)
        context["single_sign_on"] = settings.SINGLE_SIGN_ON
        context["oidc_name"] = str(provider["APPS"][0]["name"])
        return context


class ChangePassword(SuccessMessageMixin, views.PasswordChangeView):
    form_class = PasswordForm
    template_name = "accounts/password.html"
    success_url = reverse_lazy("home")
    success_message = gettext_lazy(
        "Password changed. All your other sessions were signed out, and your API tokens were revoked."
    )


@method_decorator(throttle_posts("login"), name="post")
class ForgotPassword(views.PasswordResetView):
    template_name = "accounts/forgot.html"
    email_template_name = "accounts/mail/reset.txt"
    subject_template_name = "accounts/mail/reset_subject.txt"
    success_url = reverse_lazy("password_reset_done")
    token_generator = ResetTokens()
    extra_context = {"mail": mail_is_configured}


class NewPassword(SuccessMessageMixin, views.PasswordResetConfirmView):
    template_name = "accounts/new_password.html"
    form_class = ForgottenForm
    success_url = reverse_lazy("accounts:login")
    token_generator = ResetTokens()
    success_message = gettext_lazy("Your new password is set. Sign in with it.")


@login_required
@require_safe
def account(request: SignedInRequest) -> HttpResponse:
    """Show the user's role, usage and limits, and how many objects they own."""
    labels = {"running": _("runs at once"), "queued": _("runs in the queue"), "storage": _("storage in MiB")}
    usage = []
    for kind, label in labels.items():
        unit = quotas.MIB if kind == "storage" else 1
        limit = quotas.limit_of(request.user, kind)
        used = -(-quotas.usage_of(request.user, kind) // unit)  # rounded up
        usage.append({"label": label, "used": used, "limit": limit and limit // unit})
    context = {
        "usage": usage,
        "owned": sharing.count_owned_objects(request.user),
        "second_factor": settings.SECOND_FACTOR,
    }
    return render(request, "accounts/account.html", context)


@login_required
@never_cache
def tokens(request: SignedInRequest) -> HttpResponse:
    """List personal API tokens; POST creates one, whose secret is only on the page that answers."""
    form = TokenForm(request.POST or None, user=request.user)
    context: dict[str, Any] = {"form": form, "tokens": request.user.api_tokens.all()}
    if request.method == "POST" and form.is_valid():
        try:
            context["made"], context["secret"] = services.make_token(user=request.user, **form.cleaned_data)
            context["form"] = TokenForm(user=request.user)
        except LorasiteError as error:
            form.add_service_error(error)
    return render(request, "accounts/tokens.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def end_token(request: SignedInRequest, pk: int) -> HttpResponse:
    """Revoke a personal API token."""
    token = services.end_token(user=request.user, pk=pk)
    message = _("Token revoked. Requests that still use it are refused.")
    offer_undo(request, message, "token", **undo.describe_token(token))
    return redirect("accounts:tokens")


@login_required
def sessions(request: SignedInRequest) -> HttpResponse:
    """List where the user is signed in; POST signs one session out, or all but this one (`others`)."""
    user_sessions = UserSession.objects.purge_and_list(request.user)
    this_key = request.session.session_key
    if request.method == "POST":
        selected = request.POST.get("session", "")
        ended = [s for s in user_sessions if s.session_key != this_key and selected in ("others", str(s.pk))]
        for session in ended:
            session.end()
        record("session.end", user=request.user, obj=request.user, sessions=len(ended))
        messages.success(request, _("Sessions signed out: %(count)s.") % {"count": len(ended)})
        return redirect("accounts:sessions")
    rows = [
        {
            "session": session,
            "browser": browser_name(session.user_agent),
            "is_current": session.session_key == this_key,
        }
        for session in user_sessions
    ]
    return render(request, "accounts/sessions.html", {"rows": rows})


@never_cache
def join(request: HttpRequest, secret: str) -> HttpResponse:
    """Create the account that an invitation is for, and sign in."""
    invitation = services.get_open_invitation(secret)
    form = JoinForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = services.create_invited_account(secret=secret, **form.cleaned_data)
        except NotFoundError:  # somebody else used the invitation a moment ago: nothing in this form can mend that
            raise
        except LorasiteError as error:
            form.add_service_error(error)
        else:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            return redirect("home")
    context = {"form": form, "role": invitation.get_role_display()}
    return render(request, "accounts/join.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def share(request: SignedInRequest, kind: str, name: str) -> HttpResponse:
    """Set what a person, a group or everyone may do with an object. A transfer is asked for twice, the rest can be undone."""
    obj = sharing.shared_object(request.user, kind, name)
    level = request.POST.get("access", "")
    try:
        recipients = sharing.find_recipients(request.POST.get("to", ""))
        if level == "owner" and "confirmed" not in request.POST:
            new_owner = sharing.require_possible_owner(request.user, obj, recipients[0])
            context = {
                "kind": kind,
                "object": obj,
                "new_owner": new_owner,
                "next_page": page_after_sharing(request, obj),
            }
            return render(request, "accounts/transfer.html", context)
        before = undo.change_shares(user=request.user, obj=obj, recipients=recipients, level=level)
    except InvalidError as error:  # the form stays where it is
        messages.error(request, str(error.message))
        return redirect(page_after_sharing(request, obj))
    recipient_name = str(recipients[0]) if len(recipients) == 1 else _("everyone")
    message = sharing.LEVELS[level] % {"name": recipient_name}
    if level == "owner":  # who gave it away may have no say any more
        messages.success(request, message)
    else:
        offer_undo(request, message, "share", **asdict(before))
    # Whoever gave the object away may not see its page any more.
    if not visible(request.user, type(obj)._default_manager.filter(pk=obj.pk)).exists():
        return redirect("home")
    return redirect(page_after_sharing(request, obj))


def page_after_sharing(request: SignedInRequest, obj: Any) -> str:
    """Return the address of the page that has the form, with its tab, or else of the object."""
    page = request.POST.get("page", "")
    is_ours = url_has_allowed_host_and_scheme(page, allowed_hosts=None)
    return page if is_ours else str(obj.get_absolute_url())
