from collections.abc import Collection
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractUser, Group
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from . import usernames


class Role(models.TextChoices):
    """Roles are groups of the same name; each member of a group has its role."""

    ADMIN = "admin", _("Admin")
    MEMBER = "member", _("Member")
    VIEWER = "viewer", _("Viewer")

    @property
    def explanation(self) -> Promise:
        """What a person with this role can do, in one line."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    Role.ADMIN: _("Sees and manages everything, invites people and sets limits."),
    Role.MEMBER: _("Adds data, trains models, and shares what they own."),
    Role.VIEWER: _("Sees what is shared with them and predicts, but creates nothing."),
}


class UserManager(DjangoUserManager["User"]):
    use_in_migrations = False

    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the account with exactly this name, else the only one whose name differs in case or look-alike letters.

        Raise DoesNotExist if there is none or if there are several: a sign-in must not choose between two people.
        """
        users = list(self.filter(username=username)) or usernames.find_lookalikes(self.all(), username or "")
        if len(users) != 1:
            raise self.model.DoesNotExist
        return users[0]


class User(AbstractUser):
    username = models.CharField(
        _("username"),
        max_length=150,
        unique=True,
        help_text=_("Letters of one script, digits and @ . + - _, at most 150; it begins with a letter or a digit."),
        validators=[UnicodeUsernameValidator(), usernames.validate],
        error_messages={"unique": usernames.TAKEN},
    )
    # Empty for a name that is older than this column and looks like another old one. Such an account still works.
    username_key = models.CharField(max_length=450, unique=True, null=True, editable=False)
    # Quotas; empty: the defaults of the installation.
    running_limit = models.PositiveIntegerField(_("runs at once"), null=True, blank=True)
    queued_limit = models.PositiveIntegerField(_("runs in the queue"), null=True, blank=True)
    storage_limit_mb = models.PositiveIntegerField(_("storage in MiB"), null=True, blank=True)

    objects: ClassVar[UserManager] = UserManager()
    stored_name: str | None = None  # the username in the database
    _role: Role | None = None  # read from the groups when it is first needed, or set by act_as

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> "User":
        """Also note the stored name, to notice a new one. A deferred name is in no `__dict__`, and is not queried for this."""
        user = super().from_db(*args, **kwargs)
        user.stored_name = user.__dict__.get("username")
        return user

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        super().refresh_from_db(*args, **kwargs)
        self.stored_name = self.__dict__.get("username")

    @transaction.atomic
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Validate a new name and store its key. A name that is older than the rules stays valid until it is changed.

        The signal receivers in rights.py run in the same transaction.
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
        """Return whether saving would store a name that the database does not have."""
        return self._state.adding or ("username" in self.__dict__ and self.username != self.stored_name)

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Validate the fields, but not a stored name: it may be older than the rules for names.

        Otherwise the admin could not change anything else of such an account.
        """
        excluded = set(exclude or ())
        if not self.has_new_name():
            excluded.add("username")
        super().clean_fields(excluded)

    def clean(self) -> None:
        """Refuse a new name that looks like another person's. The unique key alone would be a server error in forms."""
        super().clean()
        others = User.objects.exclude(pk=self.pk)
        if self.username and self.has_new_name() and usernames.find_lookalikes(others, self.username):
            raise ValidationError({"username": usernames.TAKEN})

    @property
    def role(self) -> Role:
        """The person's strongest role, a viewer's without any group; or the lesser one that `act_as` set."""
        if self._role is None:
            names = {group.name for group in self.groups.all()} if not self.is_superuser else set()
            if self.is_superuser or Role.ADMIN in names:
                self._role = Role.ADMIN
            else:
                self._role = Role.MEMBER if Role.MEMBER in names else Role.VIEWER
        return self._role

    def act_as(self, role: Role) -> None:
        """Act with a lesser role for the current request; nothing is stored."""
        self._role = role

    @property
    def page(self) -> str:
        """The person's page for administrators; by number if an address cannot contain the name, such as `..`."""
        if self.username[:1].isalnum():
            return reverse("accounts:person", args=[self.username])
        return reverse("accounts:person-by-id", args=[self.pk])

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def can_create(self) -> bool:
        """Whether the person may upload and train (members and admins), not only read and predict (viewers)."""
        return self.role != Role.VIEWER

    def has_perm(self, perm: str, obj: Model | None = None) -> bool:
        # Django and unfold check permissions of models in the admin; ours for objects are in permissions.py.
        return (self.is_active and self.is_admin) or super().has_perm(perm, obj)

    def has_module_perms(self, app_label: str) -> bool:
        return (self.is_active and self.is_admin) or super().has_module_perms(app_label)

    @transaction.atomic
    def set_role(self, role: Role) -> None:
        """Store the person's role."""
        # Add the new group first: a moment without a role would revoke what the role gives (see rights.py).
        group, _new = Group.objects.get_or_create(name=role)
        self.groups.add(group)
        self.groups.remove(*self.groups.filter(name__in=Role.values).exclude(pk=group.pk))
        self.is_staff = role == Role.ADMIN
        self.is_superuser = self.is_superuser and self.is_staff
        self.save(update_fields=["is_staff", "is_superuser"])
        self._role = None


class Standing(models.Model):
    """The role that a person has (empty: the account is closed), and since when."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="standing")
    role = models.CharField(max_length=10, choices=Role.choices, blank=True)
    since = models.DateTimeField()

    def __str__(self) -> str:
        return self.role or "closed"


class UsedCode(models.Model):
    """An accepted code of a second factor; each works once (RFC 6238, 5.2)."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    code = models.CharField(max_length=64)  # hashed
    used_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "code"], name="code_works_once")]

    def __str__(self) -> str:
        return f"{self.used_at:%Y-%m-%d %H:%M:%S}"


class Scope(models.TextChoices):
    """What a token may be used for. Without ADMIN, an administrator's token has the rights of a member's."""

    READ = "read", _("read everything you can see")
    WRITE = "write", _("add, train, change and delete")
    PREDICT = "predict", _("predict with models")
    ADMIN = "admin", _("act as an administrator")


class Token(models.Model):
    """A personal API token. Only a hash of the secret is stored; `stamp` ties the token to its owner's password."""

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
    """A link with which one person creates an account; sign-up is closed to everybody else."""

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
    """An Idempotency-Key that was used: by whom, for which request, and the object that it created."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)  # of the request
    made = models.CharField(max_length=64, blank=True)  # primary key of the object
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="one_use_per_key")]

    def __str__(self) -> str:
        return self.key


class Removal(models.Model):
    """An object that a person has deleted: hidden from everybody, and removed for good at `due_at` (see removals.py)."""

    content_type = models.ForeignKey(ContentType, models.CASCADE, related_name="+")
    object_id = models.BigIntegerField()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    due_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["content_type", "object_id"], name="one_removal_per_object")]

    def __str__(self) -> str:
        return f"{self.content_type} {self.object_id}"

    def find_object(self) -> Model | None:
        """Return the object; None if something else has deleted it."""
        model = self.content_type.model_class()
        return model._base_manager.filter(pk=self.object_id).first() if model else None


class BaseModelRule(models.Model):
    """A base model of the hub, or all of an organisation (`google-bert/*`), that runs may use."""

    pattern = models.CharField(
        _("base model"), max_length=200, unique=True, help_text=_("A hub id; * stands for any characters.")
    )
    note = models.CharField(_("note"), max_length=200, blank=True)

    class Meta:
        ordering = ["pattern"]
        verbose_name = _("allowed base model")
        verbose_name_plural = _("allowed base models")

    def __str__(self) -> str:
        return self.pattern
