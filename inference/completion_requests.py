"""Requests to /v1/chat/completions and /v1/completions, as OpenAI's clients write them."""

import json
from typing import Annotated, Any, Literal, Self, TypeVar

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.config_problems import describe_requirement
from engine.data.conversations import Conversation, UnusableRowError, read_messages
from engine.models.plain_templates import USUAL, PlainTemplate
from engine.sentences import Sentence, gettext_noop
from engine.serve.grammars import OBJECT, schema_fault
from web.errors import InvalidError
from web.schema import SOME_TEXT
from web.sentences import translate

from .services import ContextLengthError

USUAL_TOKENS = 512  # of an answer whose request names no limit
MOST_TOKENS = 4096
MOST_MESSAGES = 1000
MOST_STOPS = 4  # as OpenAI's API has it
STOP_LIMIT = 200  # characters
MOST_CHAT_LOGPROBS = 20  # likeliest tokens that are told, as OpenAI's API has it
MOST_LOGPROBS = 5
MOST_TOOLS = 128
SCHEMA_LIMIT = 50_000  # characters: compiling a schema takes time
PROMPT_LIMIT = 400_000  # characters of all messages: no model here reads more, and tokenising takes time

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
StopText = Annotated[str, Field(min_length=1, max_length=STOP_LIMIT)]
# Fields of which only the value that changes nothing is accepted, and what to do instead.
HINTS = {
    "model": gettext_lazy("Give the name of one model, as text. To ask several models, send a request to each."),
    "n": gettext_lazy("Each request gets one answer: leave out n, and send the request several times."),
    "response_format": gettext_lazy(
        'Give {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}.'
    ),
    "frequency_penalty": gettext_lazy("Penalties are not supported: leave them out, or give 0."),
    "presence_penalty": gettext_lazy("Penalties are not supported: leave them out, or give 0."),
    "stop": gettext_lazy(
        "Give a text, or a list of at most 4 texts, none of them empty or longer than 200 characters."
    ),
}
NoPenalty = Annotated[float, Field(ge=0, le=0)] | None


class Strict(BaseModel):
    """JSON of the right types, without unknown fields: a misspelt field must not count as left out."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class TextPart(Strict):
    type: Literal["text"]
    text: str


class FunctionCall(Strict):
    name: str
    arguments: str


class ToolCall(Strict):
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: None = None


class JsonSchema(Strict):
    """A schema with its name. `strict` changes nothing: every answer is held to it."""

    name: Annotated[str, Field(max_length=64)]
    content: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def require_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema")
        return self


class FunctionDefinition(Strict):
    """A function that the model may call. `strict` changes nothing: calls that are required are held to the parameters."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Strict):
    name: FunctionName


class NamedTool(Strict):
    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CompletionOptions(Strict):
    """What both kinds of requests have. `user`, `metadata` and `store` are read by no model and stored nowhere."""

    model: Annotated[str, Field(pattern=SOME_TEXT, max_length=200)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    frequency_penalty: NoPenalty = None
    presence_penalty: NoPenalty = None
    user: str | None = None

    @property
    def answer_tokens(self) -> int:
        """Return the most tokens of the answer."""
        return self.max_tokens or USUAL_TOKENS

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the texts before which the answer ends."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def schema_to_hold(self) -> dict[str, Any] | None:
        """Return the JSON schema that the answer is held to; None for free text."""
        return None

    @property
    def top_count(self) -> int | None:
        """Return how many of the likeliest tokens are told with each token's log-probability; None for neither."""
        return None

    @property
    def offered_tools(self) -> tuple[dict[str, Any], ...]:
        """Return the tools that the answer may call, as chat templates read them."""
        return ()

    @property
    def required_tool(self) -> str | None:
        """Return the name of the tool that the answer has to call, "" for any of them; None if it need not."""
        return None

    @property
    def plain_template(self) -> PlainTemplate:
        """Return the name of the chat template that a model without one of its own is asked with."""
        return USUAL

    @property
    def sends_usage(self) -> bool:
        """Return whether a stream ends with the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(CompletionOptions):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[FunctionTool], Field(min_length=1, max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_CHAT_LOGPROBS)] | None = None
    store: bool | None = None
    chat_template: PlainTemplate | None = None
    metadata: dict[str, str] | None = None

    @property
    def answer_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or USUAL_TOKENS

    @model_validator(mode="after")
    def require_usable_schema(self) -> Self:
        """Raise InvalidError for a schema that no answer can be held to, and for alternatives without log-probabilities."""
        schema = self.schema_to_hold
        if schema is not None and schema is not OBJECT:
            fault = _("it is too long.") if len(json.dumps(schema)) > SCHEMA_LIMIT else translate(schema_fault(schema))
            if fault:
                message = _("Answers can't be held to this schema: %(reason)s") % {"reason": fault}
                raise InvalidError(message, field="response_format")
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidError(_("Give logprobs: true with top_logprobs."), field="top_logprobs")
        return self

    @model_validator(mode="after")
    def require_usable_tools(self) -> Self:
        """Raise InvalidError for tools beside a format of the answer, and for a choice among tools that are not there."""
        names = {tool.function.name for tool in self.tools or ()}
        if self.offered_tools and self.schema_to_hold is not None:
            raise InvalidError(_("Give either tools or a response_format of JSON."), field="tools")
        if self.required_tool is not None and (not names or self.required_tool not in {"", *names}):
            raise InvalidError(_("tool_choice names no tool of this request."), field="tool_choice")
        return self

    @property
    def offered_tools(self) -> tuple[dict[str, Any], ...]:
        if self.tool_choice == "none":
            return ()
        return tuple(tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in self.tools or ())

    @property
    def required_tool(self) -> str | None:
        if isinstance(self.tool_choice, NamedTool):
            return self.tool_choice.function.name
        return "" if self.tool_choice == "required" else None

    @property
    def schema_to_hold(self) -> dict[str, Any] | None:
        if self.response_format is None or self.response_format.type == "text":
            return None
        given = self.response_format.json_schema
        return given.content if given else OBJECT

    @property
    def top_count(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None

    @property
    def plain_template(self) -> PlainTemplate:
        return self.chat_template or USUAL

    def conversation(self) -> Conversation:
        """Return the messages in the engine's form; Invalid names the message that has none."""
        conversation = []
        for index, message in enumerate(self.messages):
            try:
                conversation += read_messages([message.model_dump(exclude_none=True)])
            except UnusableRowError as error:
                raise InvalidError(reason_words(error.reason), field=f"messages.{index}") from None
        characters = sum(len(message["content"]) for message in conversation)
        if characters + len(json.dumps(self.offered_tools)) > PROMPT_LIMIT:
            too_long = _("The messages have more than %d characters, which no model here reads. Send fewer.")
            raise ContextLengthError(too_long % PROMPT_LIMIT, field="messages")
        return conversation


class CompletionRequest(CompletionOptions):
    prompt: Annotated[str, Field(min_length=1, max_length=PROMPT_LIMIT)]
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None

    @property
    def top_count(self) -> int | None:
        return self.logprobs


R = TypeVar("R", bound=Strict)


def reason_words(reason: str) -> str:
    """Return what is wrong with a message, by the engine's word for it."""
    words = {
        "broken_tool_call": _("The arguments of a tool call are not a JSON object, or are nested too deep."),
        "no_answer": _("A message of the assistant needs content or tool calls."),
    }
    return words.get(reason, _("This message has no content that can be read."))


def parse(kind: type[R], data: object) -> R:
    """Return the request; Invalid names the first field at fault and what it allows."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)[0]
    path = [str(part)[:80] for part in details["loc"]]
    field = ".".join(path[:3] if path[:1] == ["messages"] else path[:1])
    message: Any = HINTS.get(field)
    if message is None:
        requirement = describe_requirement(details)
        message = translate(Sentence(gettext_noop("{field}: {reason}"), field=field or "body", reason=requirement))
    if details["type"] == "extra_forbidden":
        known = {"known": ", ".join(kind.model_fields)}
        message = _("Unknown field, or one that is not supported. Known fields: %(known)s.") % known
        field = ".".join(path)
    raise InvalidError(message, field=field or "messages")
