"""The datasets API: datasets, versions, rows, suspects and tasks."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.http import FileResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import GenericAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.http import signed_in_user
from accounts.idempotency import HEADER, idempotency_key_of
from accounts.models import User
from accounts.permissions import require_creator
from datasets_app import selectors, services
from datasets_app.reading import hub
from datasets_app.reading.uploads import discard_upload, keep_upload, limits_upload
from datasets_app.versions import changes, diff, export
from datasets_app.versions.creation import READ_OPTIONS
from datasets_app.versions.reading_report import reading_report
from lists.serializers import AnnotateSerializer, annotate, read_changes
from web.errors import InvalidError, NotFoundError
from web.requests import parse_whole_number, refuse_unknown_fields
from web.throttles import throttle_classes_for

from .models import Dataset, DataTask, Suspect, Version
from .serializers import (
    ChangeSerializer,
    DatasetReportSerializer,
    DatasetSerializer,
    DataTaskSerializer,
    DecisionSerializer,
    DiffSerializer,
    RowsSerializer,
    StoredSerializer,
    SuspectSerializer,
    UploadSerializer,
)

WHOLE = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
NUMBER = {"type": "integer", "minimum": 1}
VERSION = OpenApiParameter("version", NUMBER, description="Its number; left out: the newest.")


@method_decorator(limits_upload, name="dispatch")
class Datasets(GenericAPIView[Dataset]):
    serializer_class = DatasetSerializer
    parser_classes = [MultiPartParser]
    throttle_classes = throttle_classes_for("upload")  # type: ignore[assignment]  # DRF calls each
    queryset = Dataset.objects.none()

    @extend_schema(operation_id="datasets_list", responses=DatasetSerializer(many=True))
    def get(self, request: Request) -> Response:
        """The datasets that you may see."""
        page = self.paginate_queryset(selectors.datasets_for(signed_in_user(request)))
        return self.get_paginated_response(DatasetSerializer(page, many=True).data)

    @extend_schema(
        operation_id="datasets_upload",
        request={"multipart/form-data": UploadSerializer},
        parameters=[HEADER],
        responses={201: StoredSerializer, 202: DataTaskSerializer},
    )
    def post(self, request: Request) -> Response:
        """Store a file as a new dataset, or as the next version of yours.

        A file over 512 KiB (unpacked), or a data set of the hub (`hub`, its id), is read by the queue (202). While several
        files are being stored, so are small ones.
        """
        require_creator(signed_in_user(request))
        refuse_unknown_fields(request.data, UploadSerializer)
        sent = UploadSerializer(data=request.data)
        sent.is_valid(raise_exception=True)
        key = idempotency_key_of(request)
        fields = sent.validated_data
        if fields.get("hub"):
            names = ("revision", "config", "text_column", "label_column", "note")
            options = {name: fields[name] for name in names if fields.get(name)}
            task = hub.submit_fetch(
                user=signed_in_user(request), name=fields["name"], identifier=fields["hub"], **options
            )
            return _render_made(request, task)
        return _render_made(request, _store_file(signed_in_user(request), request.FILES.getlist("file"), fields, key))


def _store_file(
    user: User, files: Sequence[UploadedFile], fields: dict[str, Any], key: str | None
) -> Version | DataTask:
    if not key:  # refuse before the file is kept; with a key, what it made may be another person's by now
        services.check_name(user, fields["name"])
    options: dict[str, Any] = {name: fields[name] for name in READ_OPTIONS if fields.get(name) not in (None, "", [])}
    if fields.get("quote") == "":
        options["quote"] = ""  # marks are part of the texts
    pending = keep_upload(user=user, files=files)
    try:
        return services.store_upload(
            user=user,
            name=fields["name"],
            note=fields.get("note", ""),
            pending=pending,
            idempotency_key=key,
            **options,
        )
    except BaseException:  # the caller cannot come back to the upload, as a person can on the preview page
        discard_upload(pending)
        raise


class DatasetDetail(APIView):
    serializer_class = DatasetReportSerializer

    @extend_schema(operation_id="datasets_retrieve", responses=DatasetReportSerializer)
    def get(self, request: Request, name: str) -> Response:
        """A dataset with its versions, and the validation report of the newest."""
        return Response(DatasetReportSerializer(selectors.dataset_for(signed_in_user(request), name)).data)

    @extend_schema(operation_id="datasets_annotate", request=AnnotateSerializer, responses=DatasetReportSerializer)
    @transaction.atomic
    def patch(self, request: Request, name: str) -> Response:
        """Change the tags or the note; what is not sent stays."""
        user = signed_in_user(request)
        dataset = selectors.dataset_for(user, name, manage=True)
        annotate(user, dataset, read_changes(request, AnnotateSerializer))
        return Response(DatasetReportSerializer(dataset).data)

    @extend_schema(operation_id="datasets_delete", responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        """Delete a dataset that no run uses."""
        user = signed_in_user(request)
        services.delete(user=user, dataset=selectors.dataset_for(user, name, manage=True))
        return Response(status=204)


def _find_version(user: User, name: str, number: str | int | None, *, manage: bool = False) -> Version:
    """Return a version by dataset name and number, by default the newest; raise NotFoundError or NotAllowedError."""
    return selectors.version_of(selectors.dataset_for(user, name, manage=manage), number)


def _render_made(request: Request, made: Version | DataTask) -> Response:
    """Return 201 with the new version, or 202 with the task that makes it."""
    if isinstance(made, DataTask):
        return _render_task(request, made)
    name = made.dataset.name
    body = {
        "name": name,
        "version": made.number,
        "rows": made.rows,
        "labels": made.labels,
        "kind": made.kind,
        "read": reading_report(made),
        "report_url": request.build_absolute_uri(reverse("datasets:detail", args=[name])),
    }
    return Response(StoredSerializer(body).data, status=201)


def _render_task(request: Request, task: DataTask) -> Response:
    return Response(DataTaskSerializer(task, context={"request": request}).data, status=202)


class Changes(APIView):
    serializer_class = ChangeSerializer

    @extend_schema(
        operation_id="datasets_change",
        request=ChangeSerializer,
        responses={201: StoredSerializer, 202: DataTaskSerializer},
    )
    def post(self, request: Request, name: str) -> Response:
        """Make a new version: fix a finding, edit rows, rename a label, add another version's rows, or apply decisions."""
        user = signed_in_user(request)
        dataset = selectors.dataset_for(user, name, manage=True)
        sent = ChangeSerializer(data=request.data)
        sent.is_valid(raise_exception=True)
        version = selectors.version_of(dataset, sent.validated_data.get("version"))
        change = {key: value for key, value in sent.validated_data.items() if key not in ("version", "note")}
        if change["did"] == "relabel":
            return _render_made(request, changes.from_decisions(user=user, version=version))
        if change["did"] == "merge":
            other = selectors.version_for(user, change["other"])
            change |= {"version_pk": other.pk, "other": str(other)}
        note = sent.validated_data.get("note", "")
        return _render_made(request, changes.make_version(user=user, version=version, change=change, note=note))


class Rows(APIView):
    serializer_class = RowsSerializer

    @extend_schema(
        operation_id="datasets_rows",
        parameters=[
            VERSION,
            OpenApiParameter("label", str),
            OpenApiParameter("q", str),
            OpenApiParameter("split", str),
            OpenApiParameter("limit", WHOLE),
            OpenApiParameter("offset", WHOLE),
        ],
        responses=RowsSerializer,
    )
    def get(self, request: Request, name: str) -> Response:
        """Rows of a version, searched and filtered; 1,000 at most in one answer."""
        query = request.query_params
        version = _find_version(signed_in_user(request), name, query.get("version"))
        page, total = selectors.rows_page(
            version,
            label=query.get("label", ""),
            text=query.get("q", "")[:200],
            split=query.get("split", ""),
            start=_parse_number(query.get("offset", "0")),
            size=min(1000, _parse_number(query.get("limit", "50"))),
        )
        return Response({"version": version.number, "count": total, "results": page})


class Download(APIView):
    @extend_schema(
        operation_id="datasets_download",
        parameters=[
            VERSION,
            OpenApiParameter("format", str, enum=export.FORMATS, default="csv"),
            OpenApiParameter("label", str),
            OpenApiParameter("q", str),
            OpenApiParameter("split", str),
        ],
        responses={(200, kind.partition(";")[0]): OpenApiTypes.BINARY for kind in export.CONTENT_TYPES.values()},
    )
    def get(self, request: Request, name: str) -> FileResponse:
        """The rows of a version as a file, filtered as the rows are. In CSV, cells that begin like a formula are quoted."""
        query = request.query_params
        version = _find_version(signed_in_user(request), name, query.get("version"))
        exported = export.export(version, query.get("format", "csv"), selectors.RowFilter.of_query(query))
        return FileResponse(
            exported.file, as_attachment=True, filename=exported.filename, content_type=exported.content_type
        )


def _parse_number(text: str) -> int:
    """Return `limit` or `offset` as a number; raise InvalidError for anything but up to nine digits."""
    number = parse_whole_number(text)
    if number is None or len(text) > 9:
        raise InvalidError(_("limit and offset are whole numbers, 0 or more."), field="limit")
    return number


class Diff(APIView):
    serializer_class = DiffSerializer

    @extend_schema(
        operation_id="datasets_diff",
        parameters=[OpenApiParameter("old", NUMBER), OpenApiParameter("new", NUMBER)],
        responses=DiffSerializer,
    )
    def get(self, request: Request, name: str) -> Response:
        """What differs between two versions; left out: the newest beside the one that it was made of."""
        user = signed_in_user(request)
        new = _find_version(user, name, request.query_params.get("new"))
        before = new.parent or new
        old = _find_version(user, name, request.query_params.get("old") or before.number)
        return Response({"old": old.number, "new": new.number, **diff.compare_versions(old, new)})


class Noise(GenericAPIView[Suspect]):
    serializer_class = SuspectSerializer
    queryset = Suspect.objects.none()

    @extend_schema(operation_id="datasets_noise_list", parameters=[VERSION], responses=SuspectSerializer(many=True))
    def get(self, request: Request, name: str) -> Response:
        """The suspects of a version, the likeliest wrong first."""
        version = _find_version(signed_in_user(request), name, request.query_params.get("version"))
        page = self.paginate_queryset(version.suspects.all())
        return self.get_paginated_response(SuspectSerializer(page, many=True).data)

    @extend_schema(operation_id="datasets_noise_search", request=None, responses={202: DataTaskSerializer})
    def post(self, request: Request, name: str) -> Response:
        """Look for wrong labels in the newest version; a task, whose end says how many rows are doubtful."""
        user = signed_in_user(request)
        version = _find_version(user, name, request.query_params.get("version"), manage=True)
        task = services.submit(user=user, kind=DataTask.Kind.NOISE, name=name, version=version)
        return _render_task(request, task)


class Decision(APIView):
    serializer_class = DecisionSerializer

    @extend_schema(operation_id="datasets_noise_decide", request=DecisionSerializer, responses=SuspectSerializer)
    def post(self, request: Request, name: str, rank: int) -> Response:
        """Say which label a suspect should have: its own, another, "" to drop the row, null to take an answer back."""
        user = signed_in_user(request)
        version = _find_version(user, name, request.query_params.get("version"), manage=True)
        suspect = version.suspects.filter(rank=rank).first()
        if suspect is None:
            raise NotFoundError
        sent = DecisionSerializer(data=request.data)
        sent.is_valid(raise_exception=True)
        decided = services.decide(user=user, suspect=suspect, label=sent.validated_data["label"])
        return Response(SuspectSerializer(decided).data)


class Task(APIView):
    serializer_class = DataTaskSerializer

    @extend_schema(operation_id="datasets_task", responses=DataTaskSerializer)
    def get(self, request: Request, task_id: UUID) -> Response:
        """How far work on data is, and what it made."""
        task = selectors.task_for(signed_in_user(request), task_id)
        return Response(DataTaskSerializer(task, context={"request": request}).data)


class CancelTask(APIView):
    serializer_class = DataTaskSerializer

    @extend_schema(operation_id="datasets_task_cancel", request=None, responses={202: DataTaskSerializer})
    def post(self, request: Request, task_id: UUID) -> Response:
        """Cancel it; nothing is stored."""
        user = signed_in_user(request)
        task = services.cancel(user=user, task=selectors.task_for(user, task_id, manage=True))
        return _render_task(request, task)
