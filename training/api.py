"""The REST API of tasks."""

from typing import Any, cast
from uuid import UUID

from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import api_view, parser_classes
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.errors import Invalid
from accounts.requests import person

from . import selectors, services
from .serializers import (
    AcceptedSerializer,
    ConfigSerializer,
    LogLineSerializer,
    LogSerializer,
    TaskSerializer,
    ValidConfigSerializer,
)

PROBLEM = OpenApiTypes.OBJECT
KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key with the same configuration gives the same task, however often it is sent.",
)
KEY_LENGTH = 200


class YAMLParser(BaseParser):
    """The configuration's YAML form, as text; RunConfig reads it."""

    media_type = "application/yaml"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return stream.read().decode("utf-8")
        except UnicodeDecodeError:
            raise Invalid(_("The YAML text is not UTF-8. Save it as UTF-8 and send it again.")) from None


@extend_schema(
    operation_id="train", request=ConfigSerializer, parameters=[KEY],
    responses={202: AcceptedSerializer, 400: PROBLEM, 403: PROBLEM, 409: PROBLEM},
)  # fmt: skip
@api_view(["POST"])
@parser_classes([JSONParser, YAMLParser])
def train(request: Request) -> Response:
    """Submit a run. It is accepted even when the queue is away for a moment."""
    config = services.parse_config(cast("dict[str, Any] | str", request.data))
    task = services.submit(user=person(request), config=config, idempotency_key=_idempotency_key(request))
    return Response(AcceptedSerializer(task).data, status=202, headers={"Location": f"/api/task/{task.pk}"})


@extend_schema(
    operation_id="train_validate", request=ConfigSerializer, responses={200: ValidConfigSerializer, 400: PROBLEM}
)
@api_view(["POST"])
@parser_classes([JSONParser, YAMLParser])
def validate(request: Request) -> Response:
    """Check a configuration as a submit would, and queue nothing."""
    config = services.parse_config(cast("dict[str, Any] | str", request.data))
    services.validate(user=person(request), config=config)
    return Response({"config": config.model_dump(mode="json")})


@extend_schema(operation_id="task", responses={200: TaskSerializer, 404: PROBLEM})
@api_view(["GET"])
def task(request: Request, task_id: UUID) -> Response:
    """State, stage and progress of a run."""
    return Response(TaskSerializer(selectors.task_for(person(request), task_id)).data)


@extend_schema(operation_id="task_cancel", request=None, responses={202: TaskSerializer, 404: PROBLEM, 409: PROBLEM})
@api_view(["POST"])
def cancel(request: Request, task_id: UUID) -> Response:
    """End a waiting task at once, a running one within a step; its last checkpoint is kept."""
    found = selectors.managed_task(person(request), task_id)
    return Response(TaskSerializer(services.cancel(user=person(request), task=found)).data, status=202)


@extend_schema(operation_id="task_resume", request=None, responses={202: TaskSerializer, 404: PROBLEM, 409: PROBLEM})
@api_view(["POST"])
def resume(request: Request, task_id: UUID) -> Response:
    """Queue a cancelled or failed run again, from its last good checkpoint."""
    found = selectors.managed_task(person(request), task_id)
    return Response(TaskSerializer(services.resume(user=person(request), task=found)).data, status=202)


@extend_schema(
    operation_id="task_logs",
    parameters=[OpenApiParameter("after", int, description="Lines after this one; 0: from the first.")],
    responses={200: LogSerializer, 404: PROBLEM},
)
@api_view(["GET"])
def logs(request: Request, task_id: UUID) -> Response:
    """The run's log, 500 lines at a time."""
    after = _after(request.query_params.get("after", "0"))
    lines = selectors.log_after(selectors.task_for(person(request), task_id), after)
    return Response({"lines": LogLineSerializer(lines, many=True).data, "next": lines[-1].pk if lines else after})


def _after(given: str) -> int:
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise Invalid(_("after is the number of a log line, 0 or more."), field="after")
    return int(given)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > KEY_LENGTH:
        raise Invalid(_("An Idempotency-Key has at most 200 characters."), field="Idempotency-Key")
    return key or None
