"""Write with language models: whole answers and streams."""

import time
from collections.abc import Generator
from contextlib import closing
from functools import cache

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record
from engine.data.conversations import Conversation
from engine.models.chat_template import has_template
from engine.models.plain_templates import USUAL
from engine.serve.generator import GenerationRequest, Piece
from engine.serve.generator import Generator as AnswerGenerator
from web.errors import InvalidError

from . import metrics, vllm
from .completion_requests import CompletionOptions
from .language_models import LanguageModel
from .services import engine_errors, predictor

Prompt = Conversation | str
Pieces = Generator[Piece, None, None]


def write(user: User, model: LanguageModel, options: CompletionOptions, prompt: Prompt) -> Pieces:
    """Return the pieces of an answer as they come, as `open_answer`, and add an entry to the audit log, without texts."""
    pieces = open_answer(model, options, prompt)
    record("model.generate", user=user, obj=model.source, model=model.name, base_model=model.base_model)
    return pieces


def open_answer(model: LanguageModel, options: CompletionOptions, prompt: Prompt) -> Pieces:
    """Return the pieces of an answer, once the first is there, so that what is wrong with a request is raised here.

    Closing the iterator ends the computation.
    """
    pieces = measured(generate(model, options, prompt), time.perf_counter())
    return resume(next(pieces), pieces)


def resume(first: Piece, pieces: Pieces) -> Pieces:
    with closing(pieces):
        yield first
        yield from pieces


def generate(model: LanguageModel, options: CompletionOptions, prompt: Prompt) -> Pieces:
    """Yield the pieces of an answer, by the vLLM server if it has the base model. Raises Invalid, Conflict or OverloadedError."""
    require_effect(model, options)
    if settings.VLLM_URL and vllm.adapters.serves(model.base_model):
        yield from vllm.generate(model, options)
        return
    with engine_errors(model.name, "prompt" if isinstance(prompt, str) else "messages"):
        request = GenerationRequest(
            folder=model.folder,
            prompt=prompt,
            max_tokens=options.answer_tokens,
            temperature=1.0 if options.temperature is None else options.temperature,
            top_p=options.top_p or 1.0,
            seed=options.seed,
            stop=options.stops,
            schema=options.schema_to_hold,
            top_logprobs=options.top_count,
            tools=options.offered_tools,
            required_tool=options.required_tool,
            chat_template=options.plain_template,
        )
        yield from generator().generate(request)


def require_effect(model: LanguageModel, options: CompletionOptions) -> None:
    """Raise Invalid if a plain chat template is asked for, and the model has one of its own."""
    if options.plain_template != USUAL and has_template(model.folder):
        message = _("%(name)s has a chat template of its own, which is always used. Leave out chat_template.")
        raise InvalidError(message % {"name": model.name}, field="chat_template")


def measured(pieces: Pieces, started: float) -> Pieces:
    """Pass on the pieces, and count the answer by its outcome, its tokens and its times in the metrics."""
    with metrics.count_generation(), closing(pieces):
        for number, piece in enumerate(pieces):
            if number == 0:
                metrics.FIRST_TOKEN_SECONDS.observe(time.perf_counter() - started)
            metrics.GENERATED_TOKENS.inc(piece.tokens)
            yield piece


@cache
def generator() -> AnswerGenerator:
    """Return the process's only generator, which shares the predictor's limit of memory."""
    return AnswerGenerator(
        settings.BASE_MODELS_DIR,
        device=settings.SERVE_DEVICE,
        cache=predictor().cache,
        patience=settings.SERVE_WAIT_SECONDS,
    )
