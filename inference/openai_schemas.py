"""How OpenAPI describes the answers below /v1/. Written by hand: they are those of OpenAI's API."""

from typing import Any

from drf_spectacular.types import OpenApiTypes

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NOTHING = {"type": "null"}
FINISH = {"enum": ["stop", "length", None]}


def closed(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has exactly these properties."""
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


USAGE = closed(
    prompt_tokens=INTEGER,
    completion_tokens=INTEGER,
    total_tokens=INTEGER,
    prompt_tokens_details=closed(cached_tokens=INTEGER),
)
MESSAGE = closed(role={"const": "assistant"}, content=STRING, refusal=NOTHING)
MODEL = closed(id=STRING, object={"const": "model"}, created=INTEGER, owned_by=STRING)


def completion(kind: str, **content: Any) -> dict[str, Any]:
    choice = closed(index=INTEGER, **content, logprobs=NOTHING, finish_reason=FINISH)
    return closed(
        id=STRING,
        created=INTEGER,
        model=STRING,
        object={"const": kind},
        choices={"type": "array", "items": choice},
        usage={"oneOf": [USAGE, NOTHING]},
    )


def responses(answer: dict[str, Any]) -> dict[Any, Any]:
    """Return the responses of an operation that answers as a whole or, with `stream`, as server-sent events."""
    return {(200, "application/json"): answer, (200, "text/event-stream"): OpenApiTypes.STR}


CHAT_RESPONSES = responses(completion("chat.completion", message=MESSAGE))
COMPLETION_RESPONSES = responses(completion("text_completion", text=STRING))
MODEL_RESPONSES = {200: MODEL}
MODELS_RESPONSES = {200: closed(object={"const": "list"}, data={"type": "array", "items": MODEL})}
