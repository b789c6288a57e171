"""Lists of the API: a cursor names the last row that was read, so that a page costs the same at any depth."""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from operator import attrgetter
from typing import Any

from django.core.exceptions import FieldError, ValidationError
from django.db.models import F, Model, Q, QuerySet
from django.utils.translation import gettext as _
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

from web.errors import Invalid, NotFound

PAGE, MOST = 50, 200


class CursorPagination(BasePagination):
    """`{next, results}`, in the queryset's order with the key as the last word; rows without a value come last.

    DRF's own cursor cannot pass rows that have no value in the column sorted by: an unfinished run has no accuracy.
    """

    next: str | None = None

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        size, (path, down) = page_size(request), first_order(queryset)
        column = F(path).desc(nulls_last=True) if down else F(path).asc(nulls_last=True)
        found = queryset.order_by(column, "-pk" if down else "pk")  # one direction: an index serves it
        if cursor := request.query_params.get("cursor"):
            found = found.filter(after(queryset.model, path, down, cursor))
        rows = list(found[: size + 1])
        if len(rows) > size:
            here = request.build_absolute_uri()
            self.next = replace_query_param(remove_query_param(here, "cursor"), "cursor", written(rows[size - 1], path))
        return rows[:size]

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": self.next, "results": data})

    def get_paginated_response_schema(self, schema: Any) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri", "description": "The next page; null on the last."}
        return {"type": "object", "required": ["next", "results"], "properties": {"next": link, "results": schema}}

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": MOST, "default": PAGE}
        return [
            {"name": "limit", "in": "query", "description": "Rows on a page.", "schema": limit},
            {"name": "cursor", "in": "query", "description": "As in `next`.", "schema": {"type": "string"}},
        ]


def page_size(request: Request) -> int:
    given = request.query_params.get("limit", str(PAGE))
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= MOST:
        raise Invalid(_("limit is a number from 1 to %(most)s.") % {"most": MOST}, field="limit")
    return int(given)


def first_order(queryset: QuerySet[Any]) -> tuple[str, bool]:
    """The path of the first column sorted by, and whether it descends."""
    ordering = queryset.query.order_by or queryset.model._meta.ordering or ["pk"]
    first: Any = ordering[0]
    if isinstance(first, str):
        return first.removeprefix("-"), first.startswith("-")
    return first.expression.name, first.descending


def after(model: type[Model], path: str, down: bool, cursor: str) -> Q:
    """The rows that follow the one that the cursor names."""
    value, pk = read(model, path, cursor)
    beyond = "lt" if down else "gt"
    if value is None:
        return Q(**{f"{path}__isnull": True, f"pk__{beyond}": pk})
    onward = Q(**{f"{path}__{beyond}e": value}) & ~Q(**{path: value, f"pk__{beyond}e": pk})  # a range, then few rows
    same = Q(**{path: value, f"pk__{beyond}": pk})
    return (
        Q(**{f"{path}__{beyond}": value}) | same | Q(**{f"{path}__isnull": True}) if _nullable(model, path) else onward
    )


def written(row: Model, path: str) -> str:
    value = attrgetter(path.replace("__", "."))(row)
    plain = value if isinstance(value, str | int | float | None) else getattr(value, "isoformat", value.__str__)()
    said = json.dumps([plain, str(row.pk)], ensure_ascii=False)
    return urlsafe_b64encode(said.encode()).decode().rstrip("=")


def read(model: type[Model], path: str, cursor: str) -> tuple[Any, Any]:
    try:
        value, pk = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        field = _field(model, path)
        return None if value is None else field.to_python(value), model._meta.pk.to_python(pk)
    except (ValueError, TypeError, binascii.Error, ValidationError, FieldError, RecursionError):
        raise NotFound(_("This cursor is not one of ours. Begin again without it."), field="cursor") from None


def _field(model: type[Model], path: str) -> Any:
    *relations, name = path.split("__")
    for relation in relations:
        model = model._meta.get_field(relation).related_model  # type: ignore[assignment]
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def _nullable(model: type[Model], path: str) -> bool:
    return "__" in path or _field(model, path).null
