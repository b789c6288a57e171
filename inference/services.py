"""Predict texts with a model that the person may use."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from audit.services import record
from engine.serve.answers import Answer
from engine.serve.errors import (
    BusyError,
    ModelUnreadableError,
    PredictionFailedError,
    PromptRefusedError,
    PromptTooLongError,
    ToolsRefusedError,
    WrongInputError,
)
from engine.serve.model_files import read_info
from engine.serve.predictor import Predictor, TimedPredictions
from web.errors import ConflictError, InvalidError, LorasiteError
from web.sentences import translate

from . import metrics
from .answers import format_content
from .selectors import Model, Models, models_for

TEXTS_LIMIT = 64
TEXT_LIMIT = 20_000  # characters
# The model is called unsure if the best label's probability is below SURE, or within APART of the second one's.
SURE = 0.6
APART = 0.15
TIMINGS = ("tokenize_ms", "queue_ms", "compute_ms")


class ContextLengthError(InvalidError):
    code = "context_length_exceeded"


class OverloadedError(LorasiteError):
    code = "overloaded"
    status = 429
    message = gettext_lazy("Too many requests are waiting; nothing was lost. Try again in a moment.")

    def __init__(self, *, wait: float) -> None:
        self.wait = math.ceil(wait)  # the Retry-After header
        super().__init__(retry_after=self.wait)


class PreparingError(OverloadedError):
    code = "preparing"
    status = 503
    message = gettext_lazy(
        "The sample language model is being prepared for its first use, which takes about half a minute. Try again then."
    )


def predict(
    *, user: User, texts: list[str], text_pairs: list[str] | None = None, model: str | None = None
) -> list[dict[str, Any]]:
    """Return an answer per text, or pair of texts, in their order.

    `model` names a registered model, a version of one or an experiment; the best that the person may see if left out.
    """
    check_texts(texts, text_pairs)
    chosen = choose_model(models_for(user), model)
    answers = answer_texts(chosen, texts, text_pairs)
    record("model.predict", user=user, obj=chosen.source, texts=len(texts))
    return answers


def answer_texts(model: Model, texts: list[str], text_pairs: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the model's answer to each text, or pair of texts, and count them in the metrics."""
    with metrics.count_predictions(len(texts)):  # here, so that the site and `serve` both count
        result = predict_texts(model, texts, text_pairs)
    answers = [
        format_answer(prediction, text, model.name, result)
        for prediction, text in zip(result.predictions, texts, strict=True)
    ]
    for answer in answers:
        metrics.count_answer(answer["task"], answer["confident"])
    return answers


def format_answer(prediction: Answer, text: str, model: str, result: TimedPredictions) -> dict[str, Any]:
    """Return an answer in the API's shape. Its times are an equal share of those of the whole request."""
    from engine.data.languages import detect_language  # heavy: the language detector

    texts = len(result.predictions)
    return format_content(prediction) | {
        "latency_ms": round(result.milliseconds / texts, 2),
        "base_model": result.base_model,
        "language": detect_language(text),
        "model": model,
        "truncated": prediction.truncated,
        "confident": prediction.confident,
        "timing": {timing: round(getattr(result, timing) / texts, 2) for timing in TIMINGS},
    }


def rival(probabilities: dict[str, float]) -> tuple[str, float] | None:
    """Return the second label and its probability if the model is not sure of the first, else None."""
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    first = ranked[0]
    second = ranked[1] if len(ranked) > 1 else ("", 0.0)
    sure = first[1] >= SURE and first[1] - second[1] >= APART
    return None if sure else second


def choose_model(models: Models, name: str | None) -> Model:
    """Return the model of this name, or the best one; Conflict if there is none at all."""
    model = models.named(name) if name else models.best()
    if model is None:
        raise ConflictError(_("There is no trained model yet. Train one first."), field="model")
    return model


def check_texts(texts: list[str], text_pairs: list[str] | None = None) -> None:
    """Raise Invalid unless all texts, and all second texts, can be predicted together."""
    if len(texts) > TEXTS_LIMIT:
        raise InvalidError(_("Give at most %d texts at once.") % TEXTS_LIMIT, field="texts")
    if not texts:
        raise InvalidError(_("Give a text that is not empty."), field="text")
    for field, each in (("text", texts), ("text_pair", text_pairs or [])):
        if any(not text.strip() for text in each):
            raise InvalidError(_("Give a text that is not empty."), field=field)
        # Tokenizers take UTF-8, which has no form for half of a surrogate pair.
        if any("\ud800" <= character <= "\udfff" for text in each for character in text):
            raise InvalidError(_("The text contains invalid Unicode (an unpaired surrogate)."), field=field)
        if any(len(text) > TEXT_LIMIT for text in each):
            raise InvalidError(_("Give texts of at most %d characters.") % TEXT_LIMIT, field=field)


def predict_texts(model: Model, texts: list[str], text_pairs: list[str] | None = None) -> TimedPredictions:
    """Predict the texts, or pairs of texts; Invalid, Conflict or OverloadedError as in `engine_errors`."""
    refuse_language_model(model)
    with engine_errors(model.name):
        return predictor().predict(model.folder, texts, text_pairs)


def refuse_language_model(model: Model) -> None:
    """Raise InvalidError for a model that answers in words."""
    if model.source.is_language_model:
        message = _(
            "%(name)s is a language model, which answers in words. Ask it on the chat page, or send messages to "
            "/v1/chat/completions."
        )
        raise InvalidError(message % {"name": model.name}, field="model")


def reads_pairs(model: Model) -> bool:
    """Return whether the model was trained on pairs of texts; False if its files can't be read."""
    try:
        return read_info(model.folder).text_pairs
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load(model: Model) -> str:
    """Load a model, so that its first prediction need not wait, and return the name of its base model."""
    refuse_language_model(model)
    with engine_errors(model.name):
        return predictor().load_model(model.folder)


@contextmanager
def engine_errors(name: str, prompt_field: str = "prompt") -> Iterator[None]:
    """Turn the engine's errors about the model of this name into Invalid, Conflict and OverloadedError."""
    try:
        yield
    except ModelUnreadableError as error:
        message = _("The model %(name)s can't be loaded: %(reason)s")
        reason = translate(error.message)
        raise ConflictError(message % {"name": name, "reason": reason}, field="model") from None
    except PredictionFailedError as error:
        message = _("The model %(name)s can't answer: %(reason)s")
        reason = translate(error.message)
        raise ConflictError(message % {"name": name, "reason": reason}, field="model") from None
    except WrongInputError as error:
        message = _("The model %(name)s reads one text. Leave out the second one (text_pair).")
        if error.wants_pairs:
            message = _("The model %(name)s reads two texts at once. Give the second one too (text_pair).")
        raise InvalidError(message % {"name": name}, field="text_pair") from None
    except PromptTooLongError as error:
        message = _(
            "The prompt has %(tokens)s tokens. Prompt and answer together may have %(limit)s; shorten the prompt."
        )
        numbers = {name: f"{error.facts[name]:,}" for name in ("tokens", "limit")}
        raise ContextLengthError(message % numbers, field=prompt_field) from None
    except PromptRefusedError as error:
        raise InvalidError(translate(error.message), field=prompt_field) from None
    except ToolsRefusedError as error:
        raise InvalidError(translate(error.message), field="tools") from None
    except BusyError as error:
        raise OverloadedError(wait=error.wait) from None


@cache
def predictor() -> Predictor:
    """Return the process's only predictor, so that all models share the base models in memory."""
    return Predictor(
        settings.BASE_MODELS_DIR,
        device=settings.SERVE_DEVICE,
        memory_mb=settings.SERVE_MEMORY_MB,
        batch_tokens=settings.SERVE_BATCH_TOKENS,
        patience=settings.SERVE_WAIT_SECONDS,
    )
