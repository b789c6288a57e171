"""How OpenAPI describes the answers below /v1/. Written by hand: they are those of OpenAI's API."""

from typing import Any

from drf_spectacular.types import OpenApiTypes

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
NOTHING = {"type": "null"}
FINISH = {"enum": ["stop", "length", "tool_calls", None]}


def closed(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has exactly these properties."""
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


USAGE = closed(
    prompt_tokens=INTEGER,
    completion_tokens=INTEGER,
    total_tokens=INTEGER,
    prompt_tokens_details=closed(cached_tokens=INTEGER),
)
CALL = closed(id=STRING, type={"const": "function"}, function=closed(name=STRING, arguments=STRING))
MESSAGE = closed(role={"const": "assistant"}, content={"oneOf": [STRING, NOTHING]}, refusal=NOTHING)
MESSAGE["properties"]["tool_calls"] = array(CALL)  # where the answer calls tools
TOKEN = {"token": STRING, "logprob": NUMBER, "bytes": array(INTEGER)}
CHAT_LOGPROBS = closed(content=array(closed(**TOKEN, top_logprobs=array(closed(**TOKEN)))), refusal=NOTHING)
LOGPROBS = closed(
    tokens=array(STRING),
    token_logprobs=array(NUMBER),
    top_logprobs=array({"type": "object", "additionalProperties": NUMBER}),
    text_offset=array(INTEGER),
)
MODEL = closed(id=STRING, object={"const": "model"}, created=INTEGER, owned_by=STRING)


def completion(kind: str, logprobs: dict[str, Any], **content: Any) -> dict[str, Any]:
    """Return the schema of an answer. logprobs: of its tokens. content: of its choice."""
    choice = closed(index=INTEGER, logprobs={"oneOf": [logprobs, NOTHING]}, **content, finish_reason=FINISH)
    return closed(
        id=STRING,
        created=INTEGER,
        model=STRING,
        object={"const": kind},
        choices=array(choice),
        usage={"oneOf": [USAGE, NOTHING]},
    )


def responses(answer: dict[str, Any]) -> dict[Any, Any]:
    """Return the responses of an operation that answers as a whole or, with `stream`, as server-sent events."""
    return {(200, "application/json"): answer, (200, "text/event-stream"): OpenApiTypes.STR}


CHAT_RESPONSES = responses(completion("chat.completion", CHAT_LOGPROBS, message=MESSAGE))
COMPLETION_RESPONSES = responses(completion("text_completion", LOGPROBS, text=STRING))
MODEL_RESPONSES = {200: MODEL}
MODELS_RESPONSES = {200: closed(object={"const": "list"}, data=array(MODEL))}
