"""The REST API of experiments."""

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveDestroyAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.http import signed_in_user
from lists.bulk import attempt_each
from lists.serializers import AnnotateSerializer, annotate, read_changes
from web.access import require_admin
from web.name_fields import NameSerializerField

from . import services
from .columns import SORTABLE
from .models import Experiment
from .selectors import FILTERS, get_experiment, search
from .serializers import ExperimentDetail, ExperimentRow

DESCRIPTIONS = {
    "q": "Words anywhere in name, dataset or base model.",
    "tag": "With this tag, in any case.",
    "owner": "me: only your own.",
    "learned": "false: only finished runs that are no better than the majority-class baseline.",
    "sort": f"One of {', '.join(SORTABLE)}; with a minus, the highest first.",
}
CHOICES = {
    "owner": ["", "me"],
    "learned": ["", "true", "false"],
    "sort": ["", *SORTABLE, *(f"-{key}" for key in SORTABLE)],
    "status": ["", "PENDING", "STARTED", "SUCCESS", "FAILURE", "CANCELLED"],
}


@extend_schema(
    parameters=[
        OpenApiParameter(name, str, description=DESCRIPTIONS.get(name, ""), enum=CHOICES.get(name)) for name in FILTERS
    ]
)
class ExperimentList(ListAPIView[Experiment]):
    serializer_class = ExperimentRow

    def get_queryset(self) -> QuerySet[Experiment]:
        if getattr(self, "swagger_fake_view", False):
            return Experiment.objects.none()
        query = {name: self.request.query_params.get(name, "") for name in FILTERS}
        return search(signed_in_user(self.request), **query)


class AllExperiments(ExperimentList):
    """Every experiment; for admins."""

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        require_admin(signed_in_user(request))


class MyExperiments(ExperimentList):
    """The experiments that the caller owns or that are shared with the caller."""


class OneExperiment(RetrieveDestroyAPIView[Experiment]):
    """One experiment with its configuration, metrics and files; DELETE removes it with its run and its folder."""

    serializer_class = ExperimentDetail
    queryset = Experiment.objects.none()
    lookup_field = "name"

    def get_object(self) -> Experiment:
        manage = self.request.method in ("DELETE", "PATCH")
        return get_experiment(signed_in_user(self.request), self.kwargs["name"], manage=manage)

    @extend_schema(operation_id="experiment_annotate", request=AnnotateSerializer, responses=ExperimentDetail)
    @transaction.atomic
    def patch(self, request: Request, name: str) -> Response:
        """Change the tags or the note; what is not sent stays."""
        experiment = self.get_object()
        annotate(signed_in_user(request), experiment, read_changes(request, AnnotateSerializer))
        return Response(ExperimentDetail(experiment).data)

    def perform_destroy(self, instance: Experiment) -> None:
        services.delete(user=signed_in_user(self.request), experiment=instance)


class ExperimentFile(APIView):
    @extend_schema(operation_id="experiment_file", responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, name: str, path: str) -> FileResponse:
        """One file of the results, by its path in `files`."""
        return FileResponse(services.open_file(get_experiment(signed_in_user(request), name), path), as_attachment=True)


class NamesSerializer(serializers.Serializer[Any]):
    names = serializers.ListField(child=NameSerializerField(), min_length=1, max_length=100)


class DeletedSerializer(serializers.Serializer[Any]):
    """The result for one of several experiments."""

    experiment = serializers.CharField()
    code = serializers.CharField(allow_blank=True, help_text="Empty where it was deleted, else why not.")
    detail = serializers.CharField(allow_blank=True)


class DeleteExperiments(APIView):
    @extend_schema(
        operation_id="experiments_delete", request=NamesSerializer, responses={200: DeletedSerializer(many=True)}
    )
    def post(self, request: Request) -> Response:
        """Delete up to 100 experiments with their runs and folders; one that is refused stops no other."""
        serializer = NamesSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        user = signed_in_user(request)
        outcomes = attempt_each(
            user,
            Experiment.objects.all(),
            serializer.validated_data["names"],
            lambda user, experiment: services.delete(user=user, experiment=experiment),
        )
        results = [
            {
                "experiment": outcome.name,
                "code": outcome.refusal.code if outcome.refusal else "",
                "detail": str(outcome.refusal.message) if outcome.refusal else "",
            }
            for outcome in outcomes
        ]
        return Response(results)
