from collections.abc import Callable

from django.conf import settings
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.utils.translation import gettext_lazy as _

from engine.names import LONGEST_KEY
from web.name_fields import NameField

LONGEST_NOTE = 2000
LONGEST_VIEW_NAME = 60


class Tag(models.Model):
    """A word that people have put on an object of a list, to find it by."""

    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.PositiveBigIntegerField()
    target = GenericForeignKey()
    name = NameField(_("tag"))
    name_key = models.CharField(max_length=LONGEST_KEY, editable=False)  # see `engine.names.name_key`

    class Meta:
        ordering = ["name_key"]
        constraints = [
            models.UniqueConstraint(fields=["content_type", "object_id", "name_key"], name="each_tag_once_per_object")
        ]
        indexes = [models.Index(fields=["content_type", "name_key"], name="objects_by_tag")]

    def __str__(self) -> str:
        return self.name


class Annotated(models.Model):
    """Base of what lists show: an object with tags and a note. `list_page` names the page of its list."""

    note = models.TextField(_("note"), blank=True, default="", db_default="")
    tags = GenericRelation(Tag)

    list_page: str
    get_absolute_url: Callable[[], str]

    class Meta:
        abstract = True


class SavedView(models.Model):
    """The search, filters, order and columns of a list that a person has named."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="saved_views")
    kind = models.CharField(max_length=40)  # of the list's objects, see `accounts.sharing.kind_of`
    name = models.CharField(_("name"), max_length=LONGEST_VIEW_NAME)
    name_key = models.CharField(max_length=4 * LONGEST_VIEW_NAME, editable=False)
    query = models.CharField(max_length=1000)

    class Meta:
        ordering = ["name_key"]
        constraints = [
            models.UniqueConstraint(fields=["person", "kind", "name_key"], name="one_view_per_name_person_and_list")
        ]

    def __str__(self) -> str:
        return self.name
