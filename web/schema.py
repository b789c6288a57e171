"""What every operation of the OpenAPI description has in common: errors, headers, versions and ETags."""

from typing import Any

from drf_spectacular.contrib.pydantic import PydanticExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from pydantic.json_schema import model_json_schema
from rest_framework import serializers

from web.openai_errors import PREFIX

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
OPENAI_ERROR = {
    "type": "object",
    "description": "An error in the shape of OpenAI's API.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field at fault."},
                "code": {"type": "string"},
            },
        }
    },
}
FAILURES = {
    "400": "The request is not valid; `errors` names each field at fault.",
    "401": "Not signed in, or the token is invalid, revoked or expired.",
    "403": "The role or the token's scope does not allow it.",
    "404": "It does not exist, or it is not shared with the caller.",
    "406": "The response is JSON, which `Accept` does not allow.",
    "409": "The current state does not allow it; nothing was changed.",
    "413": "Larger than allowed.",
    "415": "The body's content type is not supported.",
    "429": "Too many requests; `Retry-After` is the number of seconds to wait.",
    "507": "The server's disk is full; what was stored before is kept.",
}
HEADERS = {
    "X-Request-ID": {"description": "The request's ID in the audit log.", "schema": {"type": "string"}},
    "X-API-Version": {"description": "The API version of the response.", "schema": {"type": "string"}},
}
TAG = {
    "ETag": {
        "description": "Send it as If-None-Match to get 304 while nothing has changed.",
        "schema": {"type": "string"},
    }
}
VERSION = {
    "name": "X-API-Version",
    "in": "header",
    "description": "The API version to use; default: the newest.",
    "schema": {"type": "string", "enum": ["1"]},
}
TAG_SENT = {
    "name": "If-None-Match",
    "in": "header",
    "description": "ETags of earlier responses; 304 without a body while one of them is current.",
    "schema": {"type": "string"},
}

# Patterns of strings without NUL; SOME_TEXT also has a character that is not whitespace, to which Python counts U+001C to U+001F.
ANY_TEXT = r"^[^\u0000]*$"
SOME_TEXT = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"


class Schema(AutoSchema):
    """Describe what every operation shares, so that a view describes only what is its own."""

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        is_read = self.method == "GET"
        parameters = operation.get("parameters", [])
        for parameter in parameters:
            _forbid_nul(parameter["schema"])
        operation["parameters"] = [*parameters, VERSION, *([TAG_SENT] if is_read else [])]
        for status, response in operation["responses"].items():
            tag = TAG if is_read and status == "200" else {}
            response["headers"] = HEADERS | response.get("headers", {}) | tag
        operation["responses"] |= self._failures(operation)
        if "requestBody" in operation:
            operation["requestBody"]["required"] = True
        if is_read:
            operation["responses"]["304"] = {"description": "Nothing has changed since the ETag that was sent."}
        return operation

    def _map_serializer_field(
        self, field: serializers.Field[Any, Any, Any, Any], direction: str, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Describe that strings in requests have no NUL and, where the field refuses blanks, are not blank."""
        schema: dict[str, Any] = super()._map_serializer_field(field, direction, *args, **kwargs)
        if direction == "request" and isinstance(field, serializers.CharField) and not field.read_only:
            may_be_blank = field.allow_blank or not field.trim_whitespace
            _forbid_nul(schema, ANY_TEXT if may_be_blank else SOME_TEXT)
        return schema

    def _map_basic_serializer(self, serializer: serializers.Serializer[Any], direction: str) -> dict[str, Any]:
        """Describe that a serializer that is `closed` accepts no other fields, and not none of its own.

        `closed` is an attribute of serializers whose views call `web.requests.refuse_unknown_fields`.
        """
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)
        if direction == "request" and getattr(serializer, "closed", False):
            return schema | {"additionalProperties": False, "minProperties": 1}
        return schema

    def _failures(self, operation: dict[str, Any]) -> dict[str, Any]:
        """Return the error responses that the operation can have, by status."""
        impossible = set()
        if "requestBody" not in operation:
            impossible |= {"413", "415"}
        if self.method == "GET":
            impossible |= {"409", "507"}
        # The path, the body, the cursor or the query may name an object that does not exist.
        names_object = "{" in self.path or self.method == "POST" or getattr(self.view, "asks_for_one", False)
        has_cursor = self.method == "GET" and self._is_list_view() and self._get_paginator() is not None
        if not names_object and not has_cursor:
            impossible.add("404")
        name, schema, media_type = "Problem", PROBLEM, "application/problem+json"
        if self.path.startswith(PREFIX):
            name, schema, media_type = "OpenAIError", OPENAI_ERROR, "application/json"
        self.registry.register_on_missing(ResolvedComponent(name, ResolvedComponent.SCHEMA, schema, name))
        content = {media_type: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        return {
            status: {"description": description, "headers": HEADERS, "content": content}
            for status, description in FAILURES.items()
            if status not in impossible
        }


def _forbid_nul(schema: dict[str, Any], pattern: str = ANY_TEXT) -> None:
    """Add a pattern to the schema of a string, unless it has one or its format or list of values excludes NUL already."""
    if schema.get("type") == "string" and not schema.keys() & {"pattern", "format", "enum"}:
        schema["pattern"] = pattern


class RequestModelExtension(PydanticExtension):
    """Describe a pydantic model as clients write it: fields with a default may be left out."""

    target_class = "pydantic.BaseModel"
    match_subclasses = True
    priority = 1

    def map_serializer(self, auto_schema: AutoSchema, direction: str) -> Any:
        schema = model_json_schema(self.target, ref_template="#/components/schemas/{model}", mode="validation")
        for name, part in schema.pop("$defs", {}).items():
            auto_schema.registry.register_on_missing(ResolvedComponent(name, ResolvedComponent.SCHEMA, part, name))
        return schema
