from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, SetPasswordForm
from django.contrib.auth.password_validation import password_validators_help_texts
from django.db import transaction
from django.utils.functional import lazy
from django.utils.translation import gettext_lazy as _

from web.forms import ServiceErrorsMixin

from .models import Role, Scope, User
from .services import LONGEST, after_password_change


class EndsSessions:
    """Mixin of every form that sets a password: saving it also revokes the person's tokens."""

    @transaction.atomic
    def save(self, commit: bool = True) -> User:
        user: User = super().save(commit)  # type: ignore[misc]  # of the form that this is mixed into
        after_password_change(user)
        return user


class SignInForm(AuthenticationForm):
    """Django's form; its error does not reveal whether the account exists."""


class PasswordForm(EndsSessions, PasswordChangeForm):
    """Change one's own password; the old one is required."""


class ForgottenForm(EndsSessions, SetPasswordForm):
    """Set a new password after following a link."""


class TokenForm(ServiceErrorsMixin):
    name = forms.CharField(
        label=_("Name"), max_length=60, help_text=_("What will use it, such as a script or a machine.")
    )
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"), choices=Scope.choices, widget=forms.CheckboxSelectMultiple, initial=[Scope.READ]
    )
    days = forms.IntegerField(label=_("Expires after (days)"), min_value=1, max_value=LONGEST, initial=90)

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not user.is_admin:
            offered = [choice for choice in Scope.choices if choice[0] != Scope.ADMIN]
            self.fields["scopes"].choices = offered  # type: ignore[attr-defined]


MOST_INVITATIONS = 50  # at once
LONGEST_NOTE = 120  # of an invitation


class InviteForm(ServiceErrorsMixin):
    note = forms.CharField(
        label=_("Names, e-mail addresses or notes"),
        required=False,
        widget=forms.Textarea({"rows": 3, "class": "short"}),
        help_text=_("One person per line; each gets a link."),
    )
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.MEMBER)

    def clean_note(self) -> list[str]:
        """Return the lines, each once; a single empty one if nothing was entered."""
        lines = list(dict.fromkeys(line.strip() for line in self.cleaned_data["note"].splitlines() if line.strip()))
        if len(lines) > MOST_INVITATIONS:
            raise forms.ValidationError(
                _("These are %(count)s people; %(most)s can be invited at once."),
                params={"count": len(lines), "most": MOST_INVITATIONS},
            )
        if any(len(line) > LONGEST_NOTE for line in lines):
            raise forms.ValidationError(
                _("A line has more than %(most)s characters. Put each person on a line."), params={"most": LONGEST_NOTE}
            )
        return lines or [""]


class RoleForm(ServiceErrorsMixin):
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices)


class JoinForm(ServiceErrorsMixin):
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


class CloseForm(ServiceErrorsMixin):
    heir = forms.CharField(label=_("New owner of this person's objects"), required=False)
