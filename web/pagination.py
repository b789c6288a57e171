"""Pagination of API lists: a cursor names the last row that was read, so a page costs the same at any depth."""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from operator import attrgetter
from typing import Any

from django.core.exceptions import FieldError, ValidationError
from django.db.models import F, Model, Q
from django.utils.translation import gettext as _
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param
from rest_framework.views import APIView

from web.errors import InvalidError, NotFoundError
from web.requests import parse_whole_number

PAGE = 50
MOST = 200


class CursorPagination(BasePagination):
    """Return `{next, results}` in the queryset's order, ties broken by primary key; rows without a value come last.

    DRF's own cursor cannot pass rows whose sort column is NULL, such as the accuracy of an unfinished run.
    """

    next: str | None = None

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any]:
        """Return the rows of one page; raise InvalidError for a wrong `limit`, NotFoundError for a wrong `cursor`."""
        size = parse_whole_number(request.query_params.get("limit", str(PAGE)))
        if size is None or not 1 <= size <= MOST:
            raise InvalidError(_("limit must be a number from 1 to %(most)s.") % {"most": MOST}, field="limit")

        ordering: Any = queryset.query.order_by or queryset.model._meta.ordering or ["pk"]
        first = ordering[0]
        if isinstance(first, str):
            path, descending = first.removeprefix("-"), first.startswith("-")
        else:
            path, descending = first.expression.name, first.descending
        column = F(path).desc(nulls_last=True) if descending else F(path).asc(nulls_last=True)
        # The key sorts in the same direction as the column, so one index serves both.
        ordered = queryset.order_by(column, "-pk" if descending else "pk")

        cursor = request.query_params.get("cursor")
        if cursor:
            ordered = ordered.filter(rows_after(queryset.model, path, descending, cursor))
        rows = list(ordered[: size + 1])  # the extra row shows whether there is a next page
        if len(rows) > size:
            url = remove_query_param(request.build_absolute_uri(), "cursor")
            self.next = replace_query_param(url, "cursor", encode_cursor(rows[size - 1], path))
        return rows[:size]

    def get_paginated_response(self, data: list[Any]) -> Response:
        return Response({"next": self.next, "results": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri", "description": "The next page; null on the last."}
        return {"type": "object", "required": ["next", "results"], "properties": {"next": link, "results": schema}}

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": MOST, "default": PAGE}
        return [
            {"name": "limit", "in": "query", "description": "Rows per page.", "schema": limit},
            {"name": "cursor", "in": "query", "description": "From `next`.", "schema": {"type": "string"}},
        ]


def rows_after(model: type[Model], path: str, descending: bool, cursor: str) -> Q:
    """Return the condition for the rows that follow the cursor's row."""
    value, pk = decode_cursor(model, path, cursor)
    beyond = "lt" if descending else "gt"
    if value is None:
        return Q(**{f"{path}__isnull": True, f"pk__{beyond}": pk})
    if "__" in path or _field(model, path).null:  # a related row may be missing
        same_value = Q(**{path: value, f"pk__{beyond}": pk})
        return Q(**{f"{path}__{beyond}": value}) | same_value | Q(**{f"{path}__isnull": True})
    # One range that an index serves, minus the few rows of the same value that were read already.
    return Q(**{f"{path}__{beyond}e": value}) & ~Q(**{path: value, f"pk__{beyond}e": pk})


def encode_cursor(row: Model, path: str) -> str:
    """Return the cursor of a row: its sort value and key as URL-safe base64 of JSON."""
    value = attrgetter(path.replace("__", "."))(row)
    if hasattr(value, "isoformat"):  # JSON has no dates and times
        value = value.isoformat()
    elif not isinstance(value, str | int | float | None):
        value = str(value)
    text = json.dumps([value, str(row.pk)], ensure_ascii=False)
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(model: type[Model], path: str, cursor: str) -> tuple[Any, Any]:
    """Return the sort value and the key that a cursor holds; raise NotFoundError if it is not one of ours."""
    try:
        value, pk = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        field = _field(model, path)
        return None if value is None else field.to_python(value), model._meta.pk.to_python(pk)
    except (ValueError, TypeError, binascii.Error, ValidationError, FieldError, RecursionError):
        raise NotFoundError(_("Invalid cursor. Start again without it."), field="cursor") from None


def _field(model: type[Model], path: str) -> Any:
    """Return the field at the end of a lookup path such as `task__status`; raise FieldError if there is none."""
    *relations, name = path.split("__")
    for relation in relations:
        model = model._meta.get_field(relation).related_model  # type: ignore[assignment]
    if name == "pk":
        return model._meta.pk
    return model._meta.get_field(name)
