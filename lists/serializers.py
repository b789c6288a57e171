"""Tags and notes in the API."""

from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request

from accounts.models import User
from web.errors import InvalidError
from web.name_fields import NameSerializerField
from web.requests import StrictCharField, refuse_unknown_fields

from . import services
from .models import LONGEST_NOTE, Annotated


class TagsField(serializers.ListField):
    """The names of an object's tags."""

    child = serializers.CharField()

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"read_only": True, **options})

    def to_representation(self, data: Any) -> list[str]:
        return [tag.name for tag in data.all()]


class AnnotateSerializer(serializers.Serializer[Any]):
    closed = True  # a misspelt field is refused

    tags = serializers.ListField(
        child=NameSerializerField(), required=False, max_length=services.MOST_TAGS, help_text="All that it shall have."
    )
    note = StrictCharField(required=False, allow_blank=True, max_length=LONGEST_NOTE)


def read_changes(request: Request, serializer: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """Return the valid fields of a PATCH; raise InvalidError for unknown fields and for none."""
    refuse_unknown_fields(request.data, serializer)
    if not request.data:
        raise InvalidError(_("Give at least one of: %(names)s.") % {"names": ", ".join(serializer().fields)})
    sent = serializer(data=request.data)
    sent.is_valid(raise_exception=True)
    return dict(sent.validated_data)


def annotate(user: User, obj: Annotated, changes: dict[str, Any]) -> None:
    """Give an object the tags and the note of a PATCH, where it has them."""
    if "tags" in changes:
        services.set_tags(user=user, obj=obj, names=changes["tags"])
    if "note" in changes:
        services.set_note(user=user, obj=obj, note=changes["note"])
