from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractUser, Group
from django.db import models
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    """Roles are groups of the same name; each member of a group has its role."""

    ADMIN = "admin", _("Admin")
    MEMBER = "member", _("Member")
    VIEWER = "viewer", _("Viewer")


class User(AbstractUser):
    # quotas; empty: the installation's
    running_limit = models.PositiveIntegerField(_("runs at once"), null=True, blank=True)
    queued_limit = models.PositiveIntegerField(_("runs in the queue"), null=True, blank=True)
    storage_limit_mb = models.PositiveIntegerField(_("storage in MiB"), null=True, blank=True)

    @cached_property
    def role(self) -> Role:
        """The strongest role of the person; a person without any group is a viewer."""
        if self.is_superuser:
            return Role.ADMIN
        names = {group.name for group in self.groups.all()}
        return next((r for r in (Role.ADMIN, Role.MEMBER) if r in names), Role.VIEWER)

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def can_create(self) -> bool:
        """Members and admins upload and train; viewers read and predict."""
        return self.role != Role.VIEWER

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return (self.is_active and self.is_admin) or super().has_perm(perm, obj)

    def has_module_perms(self, app_label: str) -> bool:
        return (self.is_active and self.is_admin) or super().has_module_perms(app_label)

    def set_role(self, role: Role) -> None:
        self.groups.remove(*Group.objects.filter(name__in=Role.values))
        self.groups.add(Group.objects.get_or_create(name=role)[0])
        self.is_staff = role == Role.ADMIN
        self.is_superuser = self.is_superuser and self.is_staff
        self.save(update_fields=["is_staff", "is_superuser"])
        self.__dict__.pop("role", None)


class Scope(models.TextChoices):
    """What a token may be used for; without ADMIN an admin's token can do what a member's can."""

    READ = "read", _("read what the person may see")
    WRITE = "write", _("add, train, change and delete")
    PREDICT = "predict", _("ask models")
    ADMIN = "admin", _("act as an administrator")


class Token(models.Model):
    """A personal API token. The secret itself is nowhere; `stamp` ties it to the password that its owner had."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(_("name"), max_length=60)
    scopes = models.JSONField(_("scopes"), default=list)
    hash = models.CharField(max_length=64, unique=True)
    stamp = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(_("expires"))
    last_used_at = models.DateTimeField(null=True)
    last_address = models.GenericIPAddressField(null=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.user.get_username()}: {self.name}"

    @property
    def is_living(self) -> bool:
        return self.expires_at > timezone.now()


class Invitation(models.Model):
    """A link by which one person makes an account; sign-up is closed to everybody else."""

    hash = models.CharField(max_length=64, unique=True)
    note = models.CharField(_("for whom"), max_length=120, blank=True)
    role = models.CharField(_("role"), max_length=10, choices=Role.choices, default=Role.MEMBER)
    invited_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.note or str(self.role)


class RepeatKey(models.Model):
    """An Idempotency-Key that was used: by whom, for what, and what came of it."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)  # of what was asked for
    made = models.CharField(max_length=64, blank=True)  # key of the object
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="one_use_per_key")]

    def __str__(self) -> str:
        return self.key


class BaseModelRule(models.Model):
    """A base model, or all of an organisation (`google-bert/*`), that runs may name; the admin keeps the list."""

    pattern = models.CharField(
        _("base model"), max_length=200, unique=True, help_text=_("A hub id; * stands for any characters.")
    )
    note = models.CharField(_("note"), max_length=200, blank=True)

    class Meta:
        ordering = ["pattern"]
        verbose_name, verbose_name_plural = _("allowed base model"), _("allowed base models")

    def __str__(self) -> str:
        return self.pattern
