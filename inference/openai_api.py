"""The part of the API that OpenAI's clients speak to: /v1/chat/completions, /v1/completions and /v1/models."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.http import signed_in_user
from accounts.models import Scope
from engine.serve.generator import Usage
from engine.serve.token_logprobs import TokenLogprob
from web.errors import LorasiteError
from web.openai_errors import openai_error
from web.throttles import throttle_classes_for

from . import openai_schemas as schemas
from .completion_requests import ChatRequest, CompletionOptions, CompletionRequest, parse
from .generation import Pieces, Prompt, write
from .language_models import LanguageModel, LanguageModelOffer, choose_language_model, offered_language_models
from .openai_shapes import CHAT, COMPLETION, Shape, read
from .selectors import Models, models_for


class AnyAccept(DefaultContentNegotiation):
    """Answer in the form that the body asks for, whatever `Accept` says: some clients of streams accept those alone."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class OpenAIView(APIView):
    """A view that finds the caller's models. `model_server.py` has the same views without accounts."""

    content_negotiation_class = AnyAccept

    def models(self, request: Request) -> Models:
        return models_for(signed_in_user(request))


class CompletionView(OpenAIView):
    """A view that writes an answer, whole or as a stream of events."""

    scope = Scope.PREDICT
    throttle_classes = throttle_classes_for("predict")  # type: ignore[assignment]  # DRF calls each
    shape: Shape

    def answer(self, request: Request, options: CompletionOptions, prompt: Prompt) -> HttpResponseBase:
        """Return the answer. Whatever is wrong is raised before the first piece, so that it has a status of its own."""
        model = choose_language_model(self.models(request), options.model)
        pieces = self.write(request, model, options, prompt)
        writer = Writer(self.shape, model.name, options.sends_usage)
        if not options.stream:
            return Response(writer.whole(pieces, request.META.get("webserver.client_left")))
        return event_stream(writer.events(pieces))

    def write(self, request: Request, model: LanguageModel, options: CompletionOptions, prompt: Prompt) -> Pieces:
        return write(signed_in_user(request), model, options, prompt)


class ChatCompletions(CompletionView):
    shape = CHAT

    @extend_schema(operation_id="chat_completions", request=ChatRequest, responses=schemas.CHAT_RESPONSES)
    def post(self, request: Request) -> HttpResponseBase:
        """Write the next message of a conversation with a language model, as OpenAI's API does."""
        options = parse(ChatRequest, request.data)
        return self.answer(request, options, options.conversation())


class Completions(CompletionView):
    shape = COMPLETION

    @extend_schema(operation_id="completions", request=CompletionRequest, responses=schemas.COMPLETION_RESPONSES)
    def post(self, request: Request) -> HttpResponseBase:
        """Continue a text with a language model, as OpenAI's API does. The text is not put into a chat template."""
        options = parse(CompletionRequest, request.data)
        return self.answer(request, options, options.prompt)


class LanguageModels(OpenAIView):
    @extend_schema(operation_id="language_models_list", responses=schemas.MODELS_RESPONSES)
    def get(self, request: Request) -> Response:
        """List the language models that the caller may write with, as OpenAI's API does."""
        offers = offered_language_models(self.models(request))
        return Response({"object": "list", "data": [model_entry(offer) for offer in offers]})


class LanguageModelDetail(OpenAIView):
    @extend_schema(operation_id="language_models_retrieve", responses=schemas.MODEL_RESPONSES)
    def get(self, request: Request, name: str) -> Response:
        """Return one language model, as OpenAI's API does."""
        model = choose_language_model(self.models(request), name)
        return Response(model_entry(LanguageModelOffer.of(model)))


def model_entry(offer: LanguageModelOffer) -> dict[str, Any]:
    """Return a model as OpenAI's API lists it."""
    created = int(offer.created_at.timestamp()) if offer.created_at else 0
    return {"id": offer.name, "object": "model", "created": created, "owned_by": offer.owner}


class Writer:
    """Writes one answer in the shape that OpenAI's clients read."""

    def __init__(self, shape: Shape, model: str, sends_usage: bool) -> None:
        self.shape = shape
        self.sends_usage = sends_usage
        self.characters = 0  # of the tokens whose log-probabilities were written
        self.head = {"id": f"{shape.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, pieces: Pieces, client_left: Callable[[], bool] | None) -> dict[str, Any]:
        """Return the whole answer. Once the client has left, nothing more is written."""
        texts: list[str] = []
        logprobs: list[TokenLogprob] = []
        last = None
        for last in pieces:
            texts.append(last.text)
            logprobs += last.logprobs
            if client_left and client_left():
                pieces.close()
                break
        content = self.shape.message("".join(texts), last.calls if last else ()) | self.logprobs(logprobs)
        choice = self.choice(content, last.finish_reason if last else None)
        usage = usage_entry(last.usage) if last and last.usage else None
        return {**self.head, "object": self.shape.whole, "choices": [choice], "usage": usage}

    def events(self, pieces: Pieces) -> Iterator[bytes]:
        """Yield the events of the stream. An error that comes late is an event, too, because the status has been sent."""
        usage = None
        first = True
        try:
            with closing(pieces):  # also where nobody reads on
                for piece in pieces:
                    if piece.text or piece.logprobs or piece.calls or first:
                        content = self.shape.delta(piece.text, first, piece.calls) | self.logprobs(piece.logprobs)
                        yield event(self.chunk([self.choice(content, None)]))
                        first = False
                    if piece.finish_reason:
                        yield event(self.chunk([self.choice(self.shape.delta("", False), piece.finish_reason)]))
                        usage = piece.usage
        except LorasiteError as error:
            yield event(openai_error(error))
            return
        if self.sends_usage and usage:
            yield event(self.chunk([]) | {"usage": usage_entry(usage)})
        yield b"data: [DONE]\n\n"

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self.sends_usage else {}
        return {**self.head, "object": self.shape.chunk, "choices": choices, **usage}

    def logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the log-probabilities of the next tokens as a part of their choice; nothing where nobody asked for them."""
        if not tokens:
            return {}
        start, self.characters = self.characters, self.characters + sum(len(read(token.token)) for token in tokens)
        return {"logprobs": self.shape.logprobs(tokens, start)}

    @staticmethod
    def choice(content: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        return {"index": 0, "logprobs": None, **content, "finish_reason": finish_reason}


def usage_entry(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def event_stream(events: Iterator[bytes]) -> StreamingHttpResponse:
    """Return a response that sends each event at once."""
    response = StreamingHttpResponse(events, content_type="text/event-stream; charset=utf-8")
    response["X-Accel-Buffering"] = "no"  # nginx and its likes would wait for more
    return response


def event(content: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
