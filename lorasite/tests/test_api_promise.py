"""What version 1 of the API has promised stays: operations, parameters, and fields of what is sent and answered.

api_v1.txt holds a line each. A new promise is added with `python -m lorasite.tests.test_api_promise`; a line that is taken
out breaks somebody's program, and needs a new version of the API (web/middleware.py).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROMISED = Path(__file__).with_name("api_v1.txt")


def promises() -> set[str]:
    from drf_spectacular.generators import SchemaGenerator

    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    parts = schema["components"]["schemas"]
    return {
        f"{method.upper()} {path}{said}"
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        for said in _said(operation, parts)
    }


def _said(operation: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    yield ""
    for parameter in operation.get("parameters", []):
        yield f" takes {parameter['name']}"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f" reads {kind}"
        yield from (f" reads {field}" for field in _fields(content["schema"], parts))
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values() if status.startswith("2") else ():
            yield from (f" answers {status} {field}" for field in _fields(content["schema"], parts))


def _fields(schema: dict[str, Any], parts: dict[str, Any], depth: int = 3) -> Iterator[str]:
    """Dotted names, of lists those of their items."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    for other in schema.get("oneOf", []) + schema.get("allOf", []) + schema.get("anyOf", []):
        yield from _fields(other, parts, depth)
    if "items" in schema:
        yield from _fields(schema["items"], parts, depth)
    for name, inner in schema.get("properties", {}).items() if depth else ():
        yield name
        yield from (f"{name}.{field}" for field in _fields(inner, parts, depth - 1))


def test_what_was_promised_is_still_there() -> None:
    assert set(PROMISED.read_text(encoding="utf-8").splitlines()) - promises() == set()


if __name__ == "__main__":
    import django

    django.setup()
    PROMISED.write_text("\n".join(sorted(promises())) + "\n", encoding="utf-8")
