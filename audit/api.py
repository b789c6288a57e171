from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request

from web.access import require_admin

from .models import Entry
from .selectors import FILTERS, search


class EntrySerializer(serializers.ModelSerializer[Entry]):
    user = serializers.CharField(source="username")

    class Meta:
        model = Entry
        fields = ["at", "user", "action", "object_type", "object_id", "result", "address", "request_id", "details"]


DATE_OR_TIME = {
    "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}, {"const": ""}]
}
PARAMETERS = [OpenApiParameter(name, DATE_OR_TIME if name in ("since", "until") else str) for name in FILTERS]


@extend_schema(parameters=PARAMETERS)
class Logs(ListAPIView[Entry]):
    """The audit log, newest first. For administrators."""

    serializer_class = EntrySerializer

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        """Refuse everybody but administrators, after DRF has authenticated the request and checked the token's scopes."""
        super().initial(request, *args, **kwargs)
        require_admin(request.user)

    def get_queryset(self) -> QuerySet[Entry]:
        if getattr(self, "swagger_fake_view", False):  # drf-spectacular asks for the model, without a request
            return Entry.objects.none()
        return search(self.request.query_params)
