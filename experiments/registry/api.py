"""The REST API of registered models."""

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.http import signed_in_user
from accounts.idempotency import HEADER, idempotency_key_of
from accounts.permissions import require_creator
from lists.serializers import annotate, read_changes
from web.requests import refuse_unknown_fields

from ..models import ModelExport as StoredExport
from ..models import ModelVersion, RegisteredModel
from ..names import ALIAS_NAME
from ..selectors import get_experiment
from . import exports, selectors, services
from .columns import SORTABLE
from .serializers import (
    AliasSerializer,
    DescribeSerializer,
    ExportSerializer,
    ModelDetail,
    ModelRow,
    RegisterSerializer,
    RequestExportSerializer,
)

DESCRIPTIONS = {
    "q": "Words anywhere in name, summary, labels, data, base model or language.",
    "language": "English name of the language, as English.",
    "tag": "With this tag, in any case.",
    "labels": "A set of labels separated by commas, in any order and case: models with exactly these labels.",
    "owner": "me: only your own.",
    "sort": f"One of {', '.join(SORTABLE)}; with a minus, the highest first.",
}
CHOICES = {"sort": ["", *SORTABLE, *(f"-{key}" for key in SORTABLE)], "owner": ["", "me"]}
FORMAT = OpenApiParameter("export_format", str, OpenApiParameter.PATH, enum=exports.FORMATS)
ALIAS = OpenApiParameter("alias", {"type": "string", "pattern": f"^{ALIAS_NAME.pattern}$"}, OpenApiParameter.PATH)


@extend_schema_view(
    get=extend_schema(
        operation_id="models_list",
        parameters=[
            OpenApiParameter(name, str, description=DESCRIPTIONS.get(name, ""), enum=CHOICES.get(name))
            for name in selectors.FILTERS
        ],
    )
)
class Models(ListAPIView[RegisteredModel]):
    """The registered models that you may see."""

    serializer_class = ModelRow

    def get_queryset(self) -> QuerySet[RegisteredModel]:
        if getattr(self, "swagger_fake_view", False):
            return RegisteredModel.objects.none()
        query = {name: self.request.query_params.get(name, "") for name in selectors.FILTERS}
        return selectors.search(signed_in_user(self.request), **query)

    @extend_schema(
        operation_id="models_register", request=RegisterSerializer, parameters=[HEADER], responses={201: ModelDetail}
    )
    def post(self, request: Request) -> Response:
        """Register a finished experiment of yours as a new model, or as the next version of one."""
        require_creator(signed_in_user(request))
        refuse_unknown_fields(request.data, RegisterSerializer)
        serializer = RegisterSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        values = serializer.validated_data
        version = services.register(
            user=signed_in_user(request),
            experiment=get_experiment(signed_in_user(request), values["experiment"], manage=True),
            name=values["name"],
            summary=values.get("summary", ""),
            note=values.get("note", ""),
            checkpoint=values.get("checkpoint", "best"),
            idempotency_key=idempotency_key_of(request),
        )
        return Response(model_detail(version), status=201)


class OneModel(APIView):
    serializer_class = ModelDetail

    @extend_schema(operation_id="model", responses=ModelDetail)
    def get(self, request: Request, name: str) -> Response:
        """A model by name, or one of its versions: name@3, name@champion."""
        return Response(model_detail(selectors.version_for(signed_in_user(request), name)))

    @extend_schema(operation_id="model_describe", request=DescribeSerializer, responses=ModelDetail)
    @transaction.atomic
    def patch(self, request: Request, name: str) -> Response:
        """Change the summary, the card's text, the licences, the tags or the note; what is not sent stays."""
        user = signed_in_user(request)
        version = selectors.version_for(user, name, manage=True)
        values = read_changes(request, DescribeSerializer)
        annotate(user, version.model, values)
        if values.keys() & {"summary", "card", "licence"}:
            services.describe(
                user=user,
                version=version,
                summary=values.get("summary"),
                text=values.get("card"),
                licence=values.get("licence"),
            )
        return Response(model_detail(selectors.version_for(signed_in_user(request), name)))

    @extend_schema(operation_id="model_delete", responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        """Delete a model with all its versions, or with name@3 only that version."""
        version = selectors.version_for(signed_in_user(request), name, manage=True)
        if "@" in name:
            services.delete_version(user=signed_in_user(request), version=version)
        else:
            services.delete(user=signed_in_user(request), model=version.model)
        return Response(status=204)


class ModelArchive(APIView):
    @extend_schema(operation_id="model_archive", responses={(200, "application/zip"): OpenApiTypes.BINARY})
    def get(self, request: Request, name: str) -> FileResponse:
        """Adapter, tokenizer and card as one .zip, which plain PEFT loads."""
        version = selectors.version_for(signed_in_user(request), name)
        packed = services.archive(user=signed_in_user(request), version=version)
        return FileResponse(packed, as_attachment=True, filename=f"{version.model.name}-{version.number}.zip")


class ModelExports(APIView):
    serializer_class = ExportSerializer

    @extend_schema(operation_id="model_exports", responses=ExportSerializer(many=True))
    def get(self, request: Request, name: str) -> Response:
        """The formats that a version can be exported to, and how far each export is."""
        states = exports.list_formats(selectors.version_for(signed_in_user(request), name))
        return Response(ExportSerializer(states, many=True).data)

    @extend_schema(
        operation_id="model_export_request", request=RequestExportSerializer, responses={202: ExportSerializer}
    )
    def post(self, request: Request, name: str) -> Response:
        """Export a version; the answer is the export that is there or on its way, if there is one."""
        user = signed_in_user(request)
        version = selectors.version_for(user, name)
        require_creator(user)
        refuse_unknown_fields(request.data, RequestExportSerializer)
        serializer = RequestExportSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        state = exports.request_export(user=user, version=version, format=serializer.validated_data["format"])
        return Response(ExportSerializer(state).data, status=202)


class ModelExport(APIView):
    serializer_class = ExportSerializer

    @extend_schema(operation_id="model_export", responses=ExportSerializer, parameters=[FORMAT])
    def get(self, request: Request, name: str, export_format: str) -> Response:
        """How far an export is, and how its answers compare with those of the served model."""
        return Response(ExportSerializer(find_format(request, name, export_format)).data)

    @extend_schema(operation_id="model_export_delete", responses={204: None}, parameters=[FORMAT])
    def delete(self, request: Request, name: str, export_format: str) -> Response:
        """Delete an export and its file."""
        exports.delete_export(user=signed_in_user(request), export=find_export(request, name, export_format))
        return Response(status=204)


class CancelModelExport(APIView):
    serializer_class = ExportSerializer

    @extend_schema(
        operation_id="model_export_cancel", request=None, responses={202: ExportSerializer}, parameters=[FORMAT]
    )
    def post(self, request: Request, name: str, export_format: str) -> Response:
        """Cancel an export; nothing is stored."""
        exports.cancel_export(user=signed_in_user(request), export=find_export(request, name, export_format))
        return Response(ExportSerializer(find_format(request, name, export_format)).data, status=202)


class ModelExportArchive(APIView):
    @extend_schema(
        operation_id="model_export_archive",
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
        parameters=[FORMAT],
    )
    def get(self, request: Request, name: str, export_format: str) -> FileResponse:
        """The exported files as one .zip, with a program that uses them."""
        export = find_export(request, name, export_format)
        content = exports.open_export(user=signed_in_user(request), export=export)
        return FileResponse(content, as_attachment=True, filename=exports.export_filename(export))


class ModelAlias(APIView):
    serializer_class = AliasSerializer

    @extend_schema(operation_id="model_alias", request=AliasSerializer, responses=ModelDetail, parameters=[ALIAS])
    def put(self, request: Request, name: str, alias: str) -> Response:
        """Point name@alias at this version, whatever it pointed at before."""
        model = selectors.model_for(signed_in_user(request), name, manage=True)
        refuse_unknown_fields(request.data, AliasSerializer)
        serializer = AliasSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        version = selectors.version_of(model, str(serializer.validated_data["version"]))
        services.set_alias(user=signed_in_user(request), version=version, name=alias)
        return Response(model_detail(version))

    @extend_schema(operation_id="model_alias_end", responses={204: None})
    def delete(self, request: Request, name: str, alias: str) -> Response:
        """Remove an alias; the version stays."""
        model = selectors.model_for(signed_in_user(request), name, manage=True)
        services.remove_alias(user=signed_in_user(request), model=model, name=alias)
        return Response(status=204)


def find_format(request: Request, name: str, format: str) -> exports.FormatState:
    return exports.get_format(selectors.version_for(signed_in_user(request), name), format)


def find_export(request: Request, name: str, format: str) -> StoredExport:
    return exports.get_export(selectors.version_for(signed_in_user(request), name), format)


def model_detail(version: ModelVersion) -> dict[str, Any]:
    return dict(ModelDetail(version.model, context={"version": version}).data)
