"""Version 1 of the API keeps its operations, parameters, and fields of requests and responses.

api_v1.txt has a line for each. Add new ones with `python -m lorasite.tests.test_api_promise`. Removing a line breaks programs
of others, and needs a new version of the API (web/middleware.py).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROMISED = Path(__file__).with_name("api_v1.txt")


def promises() -> set[str]:
    from drf_spectacular.generators import SchemaGenerator

    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    parts = schema["components"]["schemas"]
    return {
        f"{method.upper()} {path}{detail}"
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        for detail in operation_details(operation, parts)
    }


def operation_details(operation: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    yield ""
    for parameter in operation.get("parameters", []):
        yield f" takes {parameter['name']}"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f" reads {kind}"
        yield from (f" reads {field}" for field in field_names(content["schema"], parts))
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values() if status.startswith("2") else ():
            yield from (f" answers {status} {field}" for field in field_names(content["schema"], parts))


def field_names(schema: dict[str, Any], parts: dict[str, Any], depth: int = 3) -> Iterator[str]:
    """Yield the dotted names of all fields; of a list, those of its items."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    for other in schema.get("oneOf", []) + schema.get("allOf", []) + schema.get("anyOf", []):
        yield from field_names(other, parts, depth)
    if "items" in schema:
        yield from field_names(schema["items"], parts, depth)
    for name, inner in schema.get("properties", {}).items() if depth else ():
        yield name
        yield from (f"{name}.{field}" for field in field_names(inner, parts, depth - 1))


@pytest.mark.medium
def test_api_still_has_everything_that_was_promised() -> None:
    assert set(PROMISED.read_text(encoding="utf-8").splitlines()) - promises() == set()


if __name__ == "__main__":
    import django

    django.setup()
    PROMISED.write_text("\n".join(sorted(promises())) + "\n", encoding="utf-8")
