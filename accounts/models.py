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
        names = set(self.groups.values_list("name", flat=True))
        return next((r for r in (Role.ADMIN, Role.MEMBER) if r in names), Role.VIEWER)

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def can_create(self) -> bool:
        """Members and admins upload and train; viewers read and predict."""
        return self.role != Role.VIEWER

    def set_role(self, role: Role) -> None:
        self.groups.remove(*Group.objects.filter(name__in=Role.values))
        self.groups.add(Group.objects.get_or_create(name=role)[0])
        self.is_staff = role == Role.ADMIN
        self.save(update_fields=["is_staff"])
        self.__dict__.pop("role", None)
