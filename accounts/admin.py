from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Count, ManyToManyField, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminSelectWidget

from .forms import EndsSessions
from .http import signed_in_user
from .models import BaseModelRule, Role, User
from .permissions import may_manage_role, may_manage_sign_in, require_sign_in_manager
from .services import change_role

# A token's page would show a valid secret; the rest have pages of their own.
admin.site.unregister([Group, OutstandingToken, BlacklistedToken, Authenticator, EmailAddress, UserSession])
admin.site.unregister([SocialAccount, SocialApp, SocialToken])


class PasswordForm(EndsSessions, AdminPasswordChangeForm):
    pass


class WithRole(forms.ModelForm):
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "role" in self.fields:  # missing where it is read-only
            self.fields["role"].initial = self.instance.role if self.instance.pk else Role.MEMBER


class AddForm(WithRole, UserCreationForm):
    pass


class ChangeForm(WithRole, UserChangeForm):
    pass


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    """Accounts. They are closed rather than deleted, so that objects and audit entries keep their user."""

    form = ChangeForm
    add_form = AddForm
    change_password_form = PasswordForm
    list_display = ["username", "email", "role_label", "is_active", "last_login", "date_joined"]
    list_filter = ["is_active", "groups", "last_login"]
    search_fields = ["username", "email", "first_name", "last_name"]
    ordering = ["username"]
    filter_horizontal = ()
    readonly_fields = ["last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["username", "password", "role", "is_active"]}),
        (_("Person"), {"fields": ["first_name", "last_name", "email", "groups"]}),
        (_("Dates"), {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"fields": ["username", "email", "usable_password", "password1", "password2", "role"]})]

    @admin.display(description=_("Role"))
    def role_label(self, user: User) -> str:
        return str(user.role.label)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        # The list shows each person's role, which is read from the groups.
        return super().get_queryset(request).prefetch_related("groups")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Fix what would lock administrators out, or let one of them take over the account of another."""
        admin_user = signed_in_user(request)
        fixed = list(self.readonly_fields)
        if obj and (obj == admin_user or not may_manage_role(admin_user, obj)):
            fixed += ["role", "is_active"]
        if obj and not may_manage_sign_in(admin_user, obj):
            fixed += ["username", "email"]
        return fixed

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Show Django's form only to somebody who may sign in as the person.

        Raise NotAllowedError or OnlySuperuserError for others. An unknown `id` is left to Django, which answers 404.
        """
        person = self.get_object(request, unquote(id))
        if person is not None:
            require_sign_in_manager(signed_in_user(request), person)
        response: HttpResponse = super().user_change_password(request, id, form_url)
        return response

    def formfield_for_manytomany(
        self, db_field: "ManyToManyField[Any, Any]", request: HttpRequest, **kwargs: Any
    ) -> forms.ModelMultipleChoiceField | None:
        """Offer teams only: the groups of the roles are chosen by `role`.

        A role's group that is chosen here would contradict `role`.
        """
        if db_field.name == "groups":
            kwargs["queryset"] = Group.objects.exclude(name__in=Role.values)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_related(self, request: HttpRequest, form: forms.ModelForm, formsets: list[Any], change: bool) -> None:
        """Save the teams of the form without removing the group of the role, then the role."""
        user = form.instance
        previous_role = user.role
        if "groups" in form.cleaned_data:
            role_groups = user.groups.filter(name__in=Role.values)
            form.cleaned_data["groups"] = [*form.cleaned_data["groups"], *role_groups]
        super().save_related(request, form, formsets, change)
        new_role = Role(form.cleaned_data.get("role", previous_role))
        change_role(user, new_role, before=previous_role if change else None)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """Teams to share with. The groups of the roles can't be changed."""

    list_display = ["name", "members"]
    fields = ["name"]
    filter_horizontal = ()

    @admin.display(description=_("Members"), ordering="members")
    def members(self, group: Group) -> int:
        return int(group.members)  # type: ignore[attr-defined]  # annotated by get_queryset

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        return super().get_queryset(request).annotate(members=Count("user"))

    def is_team(self, request: HttpRequest, obj: Group | None = None) -> bool:
        """Return whether the group is no role. Only administrators use the admin, and they may change any other group."""
        return obj is None or obj.name not in Role.values

    has_change_permission = has_delete_permission = is_team


@admin.register(BaseModelRule)
class BaseModelRuleAdmin(ModelAdmin):
    """The base models of the hub that runs may use. The sample and folders of BASE_MODELS_DIR need no entry."""

    list_display = ["pattern", "note"]
    search_fields = ["pattern"]
