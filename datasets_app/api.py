"""The datasets API: upload, list, report, delete."""

import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils.decorators import method_decorator
from drf_spectacular.utils import extend_schema
from rest_framework.generics import GenericAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.idempotency import HEADER, key_of
from accounts.permissions import get_managed, require_creator
from accounts.requests import person, refuse_unknown
from accounts.throttles import throttles

from . import selectors, services
from .files import copy_stream
from .models import Dataset
from .pending import limits_upload
from .serializers import DatasetReportSerializer, DatasetSerializer, StoredSerializer, UploadSerializer


@method_decorator(limits_upload, name="dispatch")
class Datasets(GenericAPIView[Dataset]):
    serializer_class = DatasetSerializer
    parser_classes = [MultiPartParser]
    throttle_classes = throttles("upload")  # type: ignore[assignment]  # DRF calls each
    queryset = Dataset.objects.none()

    @extend_schema(operation_id="datasets_list", responses=DatasetSerializer(many=True))
    def get(self, request: Request) -> Response:
        """The datasets that you may see."""
        page = self.paginate_queryset(selectors.datasets_for(person(request)))
        return self.get_paginated_response(DatasetSerializer(page, many=True).data)

    @extend_schema(
        operation_id="datasets_upload",
        request={"multipart/form-data": UploadSerializer},
        parameters=[HEADER],
        responses={201: StoredSerializer},
    )
    def post(self, request: Request) -> Response:
        """Store a file as a new dataset, or as the next version of yours."""
        require_creator(person(request))
        refuse_unknown(request.data, UploadSerializer)
        sent = UploadSerializer(data=request.data)
        sent.is_valid(raise_exception=True)
        version = _store(person(request), {**sent.validated_data}, key_of(request))
        name = version.dataset.name
        answer = {
            "name": name,
            "version": version.number,
            "rows": version.rows,
            "labels": version.labels,
            "report_url": request.build_absolute_uri(reverse("datasets:detail", args=[name])),
        }
        return Response(StoredSerializer(answer).data, status=201)


def _store(user: Any, fields: dict[str, Any], key: str | None) -> Any:
    upload = fields.pop("file")
    options: dict[str, Any] = {key: value or None for key, value in fields.items() if key not in ("name", "note")}
    with tempfile.TemporaryDirectory(dir=settings.FILE_UPLOAD_TEMP_DIR) as folder:
        file = Path(folder) / "data"
        copy_stream(upload.file, file, limit=settings.UPLOAD_LIMIT)
        return services.create_version(
            user=user,
            name=fields["name"],
            file=file,
            filename=upload.name,
            note=fields.get("note", ""),
            idempotency_key=key,
            **options,
        )


class DatasetDetail(APIView):
    serializer_class = DatasetReportSerializer

    @extend_schema(operation_id="datasets_retrieve", responses=DatasetReportSerializer)
    def get(self, request: Request, name: str) -> Response:
        """A dataset with its versions, and the validation report of the newest."""
        return Response(DatasetReportSerializer(selectors.dataset_for(person(request), name)).data)

    @extend_schema(operation_id="datasets_delete", responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        """Delete a dataset that no run uses."""
        dataset = get_managed(person(request), Dataset.objects.all(), name=name)
        services.delete(user=person(request), dataset=dataset)
        return Response(status=204)
