from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, SetPasswordForm
from django.contrib.auth.password_validation import password_validators_help_texts
from django.db import transaction
from django.utils.functional import lazy
from django.utils.translation import gettext_lazy as _

from web.errors import LorasiteError

from .models import Role, Scope, User
from .services import LONGEST, after_password_change


class EndsSessions:
    """For every form that gives somebody a new password."""

    @transaction.atomic
    def save(self, commit: bool = True) -> User:
        user: User = super().save(commit)  # type: ignore[misc]  # of the form beside it
        after_password_change(user)
        return user


class SignInForm(AuthenticationForm):
    """The error names no more than it must: not whether there is such an account."""


class PasswordForm(EndsSessions, PasswordChangeForm):
    """A new password of one's own; the old one is asked for."""


class ForgottenForm(EndsSessions, SetPasswordForm):
    """A new password by a link."""


class _Tells(forms.Form):
    def take(self, error: LorasiteError) -> None:
        """Put each problem of a service beside its field; what has no field here goes on top."""
        for problem in error.problems or [{"field": "", "message": error.message}]:
            self.add_error(problem["field"] if problem["field"] in self.fields else None, str(problem["message"]))


class TokenForm(_Tells):
    name = forms.CharField(label=_("Name"), max_length=60, help_text=_("What uses it, such as a script or a machine."))
    scopes = forms.MultipleChoiceField(
        label=_("It may"), choices=Scope.choices, widget=forms.CheckboxSelectMultiple, initial=[Scope.READ]
    )
    days = forms.IntegerField(label=_("It lives for, in days"), min_value=1, max_value=LONGEST, initial=90)

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not user.is_admin:
            offered = [choice for choice in Scope.choices if choice[0] != Scope.ADMIN]
            self.fields["scopes"].choices = offered  # type: ignore[attr-defined]


class InviteForm(_Tells):
    note = forms.CharField(label=_("For whom"), max_length=120, required=False)
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.MEMBER)


class JoinForm(_Tells):
    username = forms.CharField(
        label=_("Username"), max_length=150, widget=forms.TextInput({"autocomplete": "username"})
    )
    email = forms.EmailField(
        label=_("E-mail address"), required=False, widget=forms.EmailInput({"autocomplete": "email"})
    )
    password = forms.CharField(
        label=_("Password"),
        strip=False,
        widget=forms.PasswordInput({"autocomplete": "new-password"}),
        help_text=lazy(lambda: " ".join(password_validators_help_texts()), str)(),
    )


class LimitsForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["running_limit", "queued_limit", "storage_limit_mb"]


class CloseForm(_Tells):
    heir = forms.CharField(label=_("Who gets what the person owns"), required=False)
