from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _


class AppendOnlyError(RuntimeError):
    """Raised by an attempt to change or delete an entry. The hash chain reveals changes that bypass this class."""


class Entries(models.QuerySet["Entry"]):
    def refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise AppendOnlyError

    update = bulk_update = delete = refuse


class Entry(models.Model):
    """One action of one person. Entries are append-only, and each one holds the hash of the one before it."""

    at = models.DateTimeField(_("time"), db_index=True)
    person = models.BigIntegerField(null=True, blank=True)  # primary key of the account; its name may change
    username = models.CharField(_("user"), max_length=150, blank=True, db_index=True)
    action = models.CharField(_("action"), max_length=60, db_index=True)  # e.g. "task.submit"
    object_type = models.CharField(max_length=40, blank=True)
    object_id = models.CharField(_("object"), max_length=120, blank=True)
    result = models.CharField(_("result"), max_length=20, default="ok")
    address = models.GenericIPAddressField(_("address"), null=True, blank=True)
    request_id = models.CharField(max_length=36, blank=True)
    details = models.JSONField(default=dict, blank=True)
    previous = models.CharField(max_length=64, blank=True)
    hash = models.CharField(max_length=64, unique=True)

    objects = Entries.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit log")

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.username} {self.action} {self.object_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise AppendOnlyError
