from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractUser, Group
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from . import usernames


class Role(models.TextChoices):
    """Roles are groups of the same name; each member of a group has its role."""

    ADMIN = "admin", _("Admin")
    MEMBER = "member", _("Member")
    VIEWER = "viewer", _("Viewer")


class UserManager(DjangoUserManager["User"]):
    use_in_migrations = False

    def get_by_natural_key(self, username: str | None) -> "User":
        """The account of exactly this name, else the only one whose name differs in case or in letters that look alike."""
        found = list(self.filter(username=username)) or usernames.alike(self.all(), username or "")
        if len(found) != 1:
            raise self.model.DoesNotExist
        return found[0]


class User(AbstractUser):
    username = models.CharField(
        _("username"),
        max_length=150,
        unique=True,
        help_text=_("Letters of one script, digits and @ . + - _, at most 150; it begins with a letter or a digit."),
        validators=[UnicodeUsernameValidator(), usernames.validate],
        error_messages={"unique": usernames.TAKEN},
    )
    # empty: a name of before this column, and like an older one; it goes on to work
    username_key = models.CharField(max_length=450, unique=True, null=True, editable=False)
    # quotas; empty: the installation's
    running_limit = models.PositiveIntegerField(_("runs at once"), null=True, blank=True)
    queued_limit = models.PositiveIntegerField(_("runs in the queue"), null=True, blank=True)
    storage_limit_mb = models.PositiveIntegerField(_("storage in MiB"), null=True, blank=True)

    objects: ClassVar[UserManager] = UserManager()
    stored_name: str | None = None  # as the database has it

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> "User":
        user = super().from_db(*args, **kwargs)
        user.stored_name = user.__dict__.get("username")
        return user

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        super().refresh_from_db(*args, **kwargs)
        self.stored_name = self.__dict__.get("username")

    @transaction.atomic
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Check a new name and keep its key. Names of before there were rules stay as they are until they are changed.

        One transaction with what the signal after it does (see rights.py).
        """
        fields = kwargs.get("update_fields")
        if self.has_new_name() and (fields is None or "username" in fields):
            self._meta.get_field("username").clean(self.username, self)  # type: ignore[union-attr]  # it is a column
            self.username_key = usernames.key_of(self.username)
            if fields is not None:
                kwargs["update_fields"] = {*fields, "username_key"}
            self.stored_name = self.username
        super().save(*args, **kwargs)

    def has_new_name(self) -> bool:
        return self._state.adding or ("username" in self.__dict__ and self.username != self.stored_name)

    def clean_fields(self, exclude: Any = None) -> None:
        super().clean_fields({*(exclude or ()), *(() if self.has_new_name() else ("username",))})

    def clean(self) -> None:
        super().clean()
        others = User.objects.exclude(pk=self.pk)
        if self.username and self.has_new_name() and usernames.alike(others, self.username):
            raise ValidationError({"username": usernames.TAKEN})

    @cached_property
    def role(self) -> Role:
        """The strongest role of the person; a person without any group is a viewer."""
        if self.is_superuser:
            return Role.ADMIN
        names = {group.name for group in self.groups.all()}
        return next((r for r in (Role.ADMIN, Role.MEMBER) if r in names), Role.VIEWER)

    @property
    def page(self) -> str:
        """The person's page for administrators; by number where the name cannot stand in an address, such as `..`."""
        if self.username[:1].isalnum():
            return reverse("accounts:person", args=[self.username])
        return reverse("accounts:person-by-id", args=[self.pk])

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

    @transaction.atomic
    def set_role(self, role: Role) -> None:
        """The new group comes first: a moment without any would end what the role gives (see rights.py)."""
        group, _new = Group.objects.get_or_create(name=role)
        self.groups.add(group)
        self.groups.remove(*Group.objects.filter(name__in=Role.values).exclude(pk=group.pk))
        self.is_staff = role == Role.ADMIN
        self.is_superuser = self.is_superuser and self.is_staff
        self.save(update_fields=["is_staff", "is_superuser"])
        self.__dict__.pop("role", None)


class Standing(models.Model):
    """The role that a person was last seen with (empty: the account was closed), and since when."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="standing")
    role = models.CharField(max_length=10, choices=Role.choices, blank=True)
    since = models.DateTimeField()

    def __str__(self) -> str:
        return self.role or "closed"


class UsedCode(models.Model):
    """A code of a second factor that was accepted; each works once (RFC 6238, 5.2)."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    code = models.CharField(max_length=64)  # hashed
    used_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "code"], name="code_works_once")]

    def __str__(self) -> str:
        return f"{self.used_at:%Y-%m-%d %H:%M:%S}"


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
