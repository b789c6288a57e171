from typing import Any

from django.contrib.auth.models import AbstractUser, Group
from django.db import models
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    """Roles are groups of the same name; each member of a group has its role."""

    ADMIN = "admin", _("Admin")
    MEMBER = "member", _("Member")
    VIEWER = "viewer", _("Viewer")


class User(AbstractUser):
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
