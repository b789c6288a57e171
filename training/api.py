"""The REST API of tasks."""

from io import BytesIO
from typing import Any, cast
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import api_view, parser_classes, throttle_classes
from rest_framework.generics import ListAPIView
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.http import person
from accounts.idempotency import HEADER, key_of
from accounts.models import User
from accounts.permissions import require_creator
from engine.config import RunConfig
from engine.safe_yaml import LIMIT
from web.errors import Invalid, LorasiteError, TooLarge
from web.requests import tag_of, unchanged, whole_number
from web.throttles import throttles

from . import selectors, services
from .models import Status, Task
from .serializers import (
    AcceptedSerializer,
    DoneSerializer,
    LogLineSerializer,
    LogSerializer,
    ManySerializer,
    TaskSerializer,
    ValidConfigSerializer,
)

NOTHING = ("", "null", "~", "---", "--- null", "...")
CHANGES = ("pk", "status", "stage", "attempt", "step", "loss", "eta_seconds", "deaths", "cancel_requested", "ended_at")
AFTER = {"type": "integer", "minimum": 0, "maximum": 10**17, "default": 0}


class Empty(Invalid):
    message = gettext_lazy("Send a configuration; {} takes every default.")


def _content(stream: Any) -> bytes:
    """A configuration's bytes. All that was sent is read (API_BODY_LIMIT at most): who still sends hears no answer."""
    content: bytes = stream.read()
    if len(content) > LIMIT:
        message = _("A configuration has at most %(limit)s KiB; nothing was queued. Leave out what is not needed.")
        raise TooLarge(message % {"limit": LIMIT // 1024}, limit_bytes=LIMIT)
    return content


class ConfigurationParser(JSONParser):
    """The configuration as JSON."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        return super().parse(BytesIO(_content(stream)), media_type, parser_context)


class YAMLParser(BaseParser):
    """The configuration's YAML form, as text; RunConfig reads it."""

    media_type = "application/yaml"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            text = _content(stream).decode("utf-8")
        except UnicodeDecodeError:
            raise Invalid(_("The YAML text is not UTF-8. Save it as UTF-8 and send it again.")) from None
        if text.strip() in NOTHING:
            raise Empty
        return text


def _sent(request: Request) -> dict[str, Any] | str:
    """The configuration as it was sent; a request without a body is more likely a mistake than a wish."""
    if not request.headers.get("Content-Length", "").strip("0"):
        raise Empty
    return cast("dict[str, Any] | str", request.data)


@extend_schema(
    operation_id="train", request=RunConfig, parameters=[HEADER],
    responses={202: AcceptedSerializer},
)  # fmt: skip
@api_view(["POST"])
@throttle_classes(throttles("train"))  # type: ignore[arg-type]  # DRF calls each
@parser_classes([ConfigurationParser, YAMLParser])
def train(request: Request) -> Response:
    """Submit a run. It is accepted even when the queue is away for a moment.

    A configuration has 64 KiB at most, as JSON or as YAML.
    """
    require_creator(person(request))
    config = services.parse_config(_sent(request))
    task = services.submit(user=person(request), config=config, idempotency_key=key_of(request))
    return Response(AcceptedSerializer(task).data, status=202, headers={"Location": f"/api/task/{task.pk}"})


@extend_schema(operation_id="train_validate", request=RunConfig, responses={200: ValidConfigSerializer})
@api_view(["POST"])
@throttle_classes(throttles("validate"))  # type: ignore[arg-type]  # DRF calls each
@parser_classes([ConfigurationParser, YAMLParser])
def validate(request: Request) -> Response:
    """Check a configuration as a submit would, and queue nothing. For who may submit; 64 KiB at most."""
    require_creator(person(request))
    config = services.parse_config(_sent(request))
    services.validate(user=person(request), config=config)
    return Response({"config": config.model_dump(mode="json")})


@extend_schema(operation_id="task", responses={200: TaskSerializer})
@api_view(["GET"])
def task(request: Request, task_id: UUID) -> HttpResponse:
    """State, stage and progress of a run."""
    found = selectors.task_for(person(request), task_id)
    if found.status == Status.PENDING:  # its place in line moves without it
        return Response(TaskSerializer(found).data)
    tag = tag_of(*(getattr(found, name) for name in CHANGES))
    return unchanged(request, tag) or Response(TaskSerializer(found).data, headers={"ETag": tag})


@extend_schema(operation_id="task_cancel", request=None, responses={202: TaskSerializer})
@api_view(["POST"])
def cancel(request: Request, task_id: UUID) -> Response:
    """End a waiting task at once, a running one within a step; its last checkpoint is kept."""
    found = selectors.managed_task(person(request), task_id)
    return Response(TaskSerializer(services.cancel(user=person(request), task=found)).data, status=202)


@extend_schema(operation_id="task_resume", request=None, responses={202: TaskSerializer})
@api_view(["POST"])
def resume(request: Request, task_id: UUID) -> Response:
    """Queue a cancelled or failed run again, from its last good checkpoint."""
    found = selectors.managed_task(person(request), task_id)
    return Response(TaskSerializer(services.resume(user=person(request), task=found)).data, status=202)


@extend_schema(
    operation_id="task_logs",
    parameters=[OpenApiParameter("after", AFTER, description="Lines after this one; 0: from the first.")],
    responses={200: LogSerializer},
)
@api_view(["GET"])
def logs(request: Request, task_id: UUID) -> Response:
    """The run's log, 500 lines at a time."""
    after = _after(request.query_params.get("after", "0"))
    lines = selectors.log_after(selectors.task_for(person(request), task_id), after)
    return Response({"lines": LogLineSerializer(lines, many=True).data, "next": lines[-1].pk if lines else after})


def _after(given: str) -> int:
    after = whole_number(given)
    if after is None:
        raise Invalid(_("after is the number of a log line, 0 or more."), field="after")
    return after


FILTERS = ("status", "owner")


class Tasks(ListAPIView[Task]):
    """Runs of the caller and what is shared with the caller, the newest first."""

    serializer_class = TaskSerializer

    @extend_schema(
        operation_id="tasks",
        parameters=[
            OpenApiParameter("status", str, enum=["", *Status.values]),
            OpenApiParameter("owner", str, enum=["", "me"], description="me: one's own only."),
        ],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Task]:
        query = {name: self.request.query_params.get(name, "") for name in FILTERS}
        return selectors.search(person(self.request), **query)


@extend_schema(operation_id="tasks_cancel", request=ManySerializer, responses={200: DoneSerializer(many=True)})
@api_view(["POST"])
def cancel_many(request: Request) -> Response:
    """Cancel up to 100 runs; each answer says what became of one, and one that is refused stops no other."""
    asked = ManySerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    return Response([_cancelled(person(request), task_id) for task_id in asked.validated_data["task_ids"]])


def _cancelled(user: User, task_id: UUID) -> dict[str, Any]:
    try:
        found = services.cancel(user=user, task=selectors.managed_task(user, task_id))
    except LorasiteError as error:
        return {"task_id": task_id, "code": error.code, "detail": str(error.message)}
    return {"task_id": task_id, "code": "", "detail": selectors.note_for(found) or str(found.get_status_display())}
