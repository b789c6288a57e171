"""The REST API of tasks."""

from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any, cast
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.decorators import api_view, parser_classes, throttle_classes
from rest_framework.generics import ListAPIView
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.http import signed_in_user
from accounts.idempotency import HEADER, idempotency_key_of
from accounts.permissions import require_creator
from engine.config import RunConfig
from engine.safe_yaml import LIMIT
from engine.task_types import TaskType
from experiments.task_types import TASK_TYPES
from web.errors import InvalidError, LorasiteError, RequestTooLargeError
from web.requests import compute_etag, not_modified_response, parse_whole_number
from web.throttles import throttle_classes_for

from . import selectors, services
from .hub_search import find_base_models
from .models import Status, Task
from .serializers import (
    AcceptedSerializer,
    BaseModelsSerializer,
    DoneSerializer,
    LogLineSerializer,
    LogSerializer,
    ManySerializer,
    TaskSerializer,
    ValidConfigSerializer,
)

EMPTY_YAML = ("", "null", "~", "---", "--- null", "...")
ETAG_FIELDS = (  # what a poll can see change; hashing them is much cheaper than rendering the answer
    "pk",
    "status",
    "stage",
    "attempt",
    "step",
    "loss",
    "eta_seconds",
    "deaths",
    "cancel_requested",
    "notices",
    "ended_at",
)
LAST_LINE = 10**17  # more lines than a log can have
AFTER = {"type": "integer", "minimum": 0, "maximum": LAST_LINE, "default": 0}
FILTERS = ("status", "owner")
LOG_PAGE = 500  # lines


class EmptyConfigError(InvalidError):
    message = gettext_lazy("Send a configuration; {} takes every default.")


def read_body(stream: IO[bytes]) -> bytes:
    """Return the bytes of a configuration; raise RequestTooLargeError above LIMIT."""
    content = stream.read()  # all of it (API_BODY_LIMIT at most): a client that is still sending reads no answer
    if len(content) > LIMIT:
        message = _("A configuration has at most %(limit)s KiB; nothing was queued. Remove what is not needed.")
        raise RequestTooLargeError(message % {"limit": LIMIT // 1024}, limit_bytes=LIMIT)
    return content


class ConfigurationParser(JSONParser):
    """Parse a configuration sent as JSON."""

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        return super().parse(BytesIO(read_body(stream)), media_type, parser_context)


class YAMLParser(BaseParser):
    """Accept a configuration sent as YAML, as text; RunConfig parses it."""

    media_type = "application/yaml"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            text = read_body(stream).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidError(_("The YAML text is not UTF-8. Save it as UTF-8 and send it again.")) from None
        if text.strip() in EMPTY_YAML:
            raise EmptyConfigError
        return text


def read_config(request: Request) -> RunConfig:
    """Return the configuration that was sent, as JSON or YAML, by a person who may create runs."""
    user = signed_in_user(request)
    require_creator(user)
    # Every default is a valid run, but a request without a body is more likely a mistake.
    if not request.headers.get("Content-Length", "").strip("0"):
        raise EmptyConfigError
    return services.parse_config(cast("dict[str, Any] | str", request.data), user)


@extend_schema(operation_id="train", request=RunConfig, parameters=[HEADER], responses={202: AcceptedSerializer})
@api_view(["POST"])
@throttle_classes(throttle_classes_for("train"))  # type: ignore[arg-type]  # DRF calls each
@parser_classes([ConfigurationParser, YAMLParser])
def train(request: Request) -> Response:
    """Submit a run. It is accepted even while the queue is unavailable.

    A configuration has at most 64 KiB, as JSON or as YAML.
    """
    config = read_config(request)
    task = services.submit(user=signed_in_user(request), config=config, idempotency_key=idempotency_key_of(request))
    return Response(AcceptedSerializer(task).data, status=202, headers={"Location": f"/api/task/{task.pk}"})


@extend_schema(operation_id="train_validate", request=RunConfig, responses={200: ValidConfigSerializer})
@api_view(["POST"])
@throttle_classes(throttle_classes_for("validate"))  # type: ignore[arg-type]  # DRF calls each
@parser_classes([ConfigurationParser, YAMLParser])
def validate(request: Request) -> Response:
    """Check a configuration as a submit would, and queue nothing. Needs the right to submit; at most 64 KiB."""
    config = read_config(request)
    notices = services.validate(user=signed_in_user(request), config=config)
    return Response(ValidConfigSerializer({"config": config.model_dump(mode="json"), "notices": notices}).data)


@extend_schema(
    operation_id="base_models",
    parameters=[
        OpenApiParameter("q", str, description="Words in name, languages, licence or purpose."),
        OpenApiParameter("language", str, description="Only models that are known to read it: its English name."),
        OpenApiParameter("task", str, enum=list(TASK_TYPES), description="Only models that can learn this task type."),
        OpenApiParameter("hub", bool, description="Also search the model hub for q. Slower; cached for an hour."),
    ],
    responses={200: BaseModelsSerializer},
)
@api_view(["GET"])
def base_models(request: Request) -> Response:
    """List the base models that runs may use: those on this machine first, then the recommended ones of the hub."""
    query, language, task = (request.query_params.get(name, "") for name in ("q", "language", "task"))
    asked = request.query_params.get("hub", "false")
    if asked not in ("true", "false"):
        raise InvalidError(_("hub is true or false."), field="hub")
    if task and task not in TASK_TYPES:
        raise InvalidError(_("task is one of: %(listed)s.") % {"listed": ", ".join(TASK_TYPES)}, field="task")
    models, hub = find_base_models(query, language, cast("TaskType | None", task or None), search=asked == "true")
    return Response(BaseModelsSerializer({"results": models, "hub": hub}).data)


@extend_schema(operation_id="task", responses={200: TaskSerializer})
@api_view(["GET"])
def task(request: Request, task_id: UUID) -> HttpResponse:
    """Return state, stage and progress of a run."""
    shown = selectors.task_for(signed_in_user(request), task_id)
    if shown.status == Status.PENDING:  # its place in the queue changes although its row does not
        return Response(TaskSerializer(shown).data)
    tag = compute_etag(*(getattr(shown, name) for name in ETAG_FIELDS))
    return not_modified_response(request, tag) or Response(TaskSerializer(shown).data, headers={"ETag": tag})


@extend_schema(operation_id="task_cancel", request=None, responses={202: TaskSerializer})
@api_view(["POST"])
def cancel(request: Request, task_id: UUID) -> Response:
    """End a waiting task at once, a running one within a step. The last checkpoint is kept."""
    user = signed_in_user(request)
    cancelled = services.cancel(user=user, task=selectors.task_for(user, task_id, manage=True))
    return Response(TaskSerializer(cancelled).data, status=202)


@extend_schema(operation_id="task_resume", request=None, responses={202: TaskSerializer})
@api_view(["POST"])
def resume(request: Request, task_id: UUID) -> Response:
    """Queue a cancelled or failed run again, from its last good checkpoint."""
    user = signed_in_user(request)
    resumed = services.resume(user=user, task=selectors.task_for(user, task_id, manage=True))
    return Response(TaskSerializer(resumed).data, status=202)


@extend_schema(
    operation_id="task_logs",
    parameters=[OpenApiParameter("after", AFTER, description="Lines after this one; 0: from the first.")],
    responses={200: LogSerializer},
)
@api_view(["GET"])
def logs(request: Request, task_id: UUID) -> Response:
    """Return the run's log, 500 lines at a time."""
    after = parse_whole_number(request.query_params.get("after", "0"))
    if after is None or after > LAST_LINE:
        raise InvalidError(_("after is the number of a log line, 0 or more."), field="after")
    task = selectors.task_for(signed_in_user(request), task_id)
    lines = list(task.log.filter(pk__gt=after)[:LOG_PAGE])  # the oldest first
    return Response({"lines": LogLineSerializer(lines, many=True).data, "next": lines[-1].pk if lines else after})


@extend_schema_view(
    get=extend_schema(
        operation_id="tasks",
        parameters=[
            OpenApiParameter("status", str, enum=["", *Status.values]),
            OpenApiParameter("owner", str, enum=["", "me"], description="me: only the caller's own."),
        ],
    )
)
class Tasks(ListAPIView[Task]):
    """List the caller's runs and those shared with the caller, the newest first."""

    serializer_class = TaskSerializer

    def get_queryset(self) -> QuerySet[Task]:
        query = {name: self.request.query_params.get(name, "") for name in FILTERS}
        return selectors.search(signed_in_user(self.request), **query)


@extend_schema(operation_id="tasks_cancel", request=ManySerializer, responses={200: DoneSerializer(many=True)})
@api_view(["POST"])
def cancel_many(request: Request) -> Response:
    """Cancel up to 100 runs. Each has its own result, so one that is refused does not stop the others."""
    user = signed_in_user(request)
    serializer = ManySerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    outcomes = []
    for task_id in serializer.validated_data["task_ids"]:
        outcome = {"task_id": task_id, "code": ""}
        try:
            cancelled = services.cancel(user=user, task=selectors.task_for(user, task_id, manage=True))
        except LorasiteError as error:
            outcome |= {"code": error.code, "detail": str(error.message)}
        else:
            outcome["detail"] = selectors.note_for(cancelled) or str(cancelled.get_status_display())
        outcomes.append(outcome)
    return Response(outcomes)
