"""What the OpenAPI description says beside each view's own words: how every failure looks, which headers there are."""

from typing import Any

from drf_spectacular.contrib.pydantic import PydanticExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from pydantic.json_schema import model_json_schema
from rest_framework import serializers

PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `code` is for programs, `detail` for people, `errors` names each field at fault.",
    "required": ["type", "title", "status", "code", "detail", "errors", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "request_id": {"type": "string", "description": "As in X-Request-ID and in the audit log."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
FAILURES = {
    "400": "Something sent is not as described; `errors` says what.",
    "401": "Nobody is signed in, or what was sent as a token is none any more.",
    "403": "The role, or the token's scope, does not allow it.",
    "404": "There is no such thing, or it is not shared with the caller.",
    "406": "The answer is JSON; `Accept` allows none.",
    "409": "The state does not allow it; nothing was changed.",
    "413": "Larger than allowed.",
    "415": "The body's type is not read here.",
    "429": "Too often; `Retry-After` tells the seconds to wait.",
    "507": "The server's disk is full; what was stored before is kept.",
}
HEADERS = {
    "X-Request-ID": {"description": "Names this request in the audit log.", "schema": {"type": "string"}},
    "X-API-Version": {"description": "The version of the API that answers.", "schema": {"type": "string"}},
}
TAG = {"ETag": {"description": "Send it as If-None-Match to be told 304.", "schema": {"type": "string"}}}
VERSION = {
    "name": "X-API-Version",
    "in": "header",
    "description": "The version that the caller speaks; the newest where it is left out.",
    "schema": {"type": "string", "enum": ["1"]},
}
TAG_SENT = {
    "name": "If-None-Match",
    "in": "header",
    "description": "ETags of earlier answers; 304 without a body where one of them still holds.",
    "schema": {"type": "string"},
}

ANY_TEXT, SOME_TEXT = r"^[^\u0000]*$", r"^[^\u0000]*[^\s\u0000][^\u0000]*$"  # no NUL; and something that is no blank


class Schema(AutoSchema):
    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        reads = self.method == "GET"
        for parameter in operation.get("parameters", []):
            _without_nul(parameter["schema"])
        operation["parameters"] = [*operation.get("parameters", []), VERSION, *([TAG_SENT] if reads else [])]
        for status, response in operation["responses"].items():
            response["headers"] = HEADERS | response.get("headers", {}) | (TAG if reads and status == "200" else {})
        operation["responses"] |= self._failures(operation)
        if "requestBody" in operation:
            operation["requestBody"]["required"] = True
        if reads:
            operation["responses"]["304"] = {"description": "Nothing has changed since the tag that was sent."}
        return operation

    def _map_serializer_field(self, field: Any, direction: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_serializer_field(field, direction, *args, **kwargs)
        if direction == "request" and isinstance(field, serializers.CharField) and not field.read_only:
            _without_nul(schema, SOME_TEXT if not field.allow_blank and field.trim_whitespace else ANY_TEXT)
        return schema

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)
        closed = direction == "request" and getattr(serializer, "closed", False)
        return schema | {"additionalProperties": False, "minProperties": 1} if closed else schema

    def _failures(self, operation: dict[str, Any]) -> dict[str, Any]:
        left_out = set() if "requestBody" in operation else {"413", "415"}
        left_out |= (
            set() if "{" in self.path or self.method == "POST" or self._paginates() or self._asks_for_one() else {"404"}
        )
        left_out |= {"409", "507"} if self.method == "GET" else set()
        ref = {"$ref": f"#/components/schemas/{self._problem()}"}
        content = {"application/problem+json": {"schema": ref}}
        told = {status: words for status, words in FAILURES.items() if status not in left_out}
        return {s: {"description": words, "headers": HEADERS, "content": content} for s, words in told.items()}

    def _paginates(self) -> bool:
        return self.method == "GET" and self._is_list_view() and self._get_paginator() is not None

    def _asks_for_one(self) -> bool:
        """Whether the query names a thing that may not be there."""
        return getattr(self.view, "asks_for_one", False)

    def _problem(self) -> str:
        component = ResolvedComponent("Problem", ResolvedComponent.SCHEMA, PROBLEM, "Problem")
        self.registry.register_on_missing(component)
        return "Problem"


def _without_nul(schema: dict[str, Any], pattern: str = ANY_TEXT) -> None:
    if schema.get("type") == "string" and not schema.keys() & {"pattern", "format", "enum"}:
        schema["pattern"] = pattern


class Sent(PydanticExtension):
    """A pydantic model as a caller writes it: a field with a default may be left out."""

    target_class = "pydantic.BaseModel"
    match_subclasses, priority = True, 1

    def map_serializer(self, auto_schema: Any, direction: str) -> Any:
        schema = model_json_schema(self.target, ref_template="#/components/schemas/{model}", mode="validation")
        for name, part in schema.pop("$defs", {}).items():
            auto_schema.registry.register_on_missing(ResolvedComponent(name, ResolvedComponent.SCHEMA, part, name))
        return schema
