"""Predictions for people: which model, may they use it, what does it say."""

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
from engine.serve.errors import Busy, Unreadable
from engine.serve.predictor import Answers, Prediction, Predictor
from engine.serve.word_importance import words_that_mattered
from web.errors import Conflict, Invalid, LorasiteError

from . import metrics
from .selectors import Model, Models, models_for

TEXTS_LIMIT = 64
TEXT_LIMIT = 20_000  # characters
SURE, APART = 0.6, 0.15  # below such a probability, or with the next label so near, the model is not sure


class Overloaded(LorasiteError):
    code, status = "overloaded", 429
    message = gettext_lazy(
        "There is more to predict than can be answered soon; nothing was lost. Ask again in a moment."
    )

    def __init__(self, *, wait: float) -> None:
        super().__init__(retry_after=math.ceil(wait))
        self.wait = math.ceil(wait)


def predict(*, user: User, texts: list[str], model: str | None = None) -> list[dict[str, Any]]:
    """An answer per text, in their order; `model` names a registered model, a version of it or an experiment.

    Left out, the best one that the person may see answers.
    """
    check_texts(texts)
    chosen = choose(models_for(user), model)
    found = answers(chosen, texts)
    record("model.predict", user=user, obj=chosen.source, texts=len(texts))
    return found


def answers(model: Model, texts: list[str]) -> list[dict[str, Any]]:
    """What the model says of each text."""
    with metrics.measured(len(texts)):
        found = ask(model, texts)
    return [answer(p, text, model.name, found) for p, text in zip(found.predictions, texts, strict=True)]


def answer(prediction: Prediction, text: str, model: str, found: Answers) -> dict[str, Any]:
    """The times are this text's share of those of all texts that were asked together."""
    from engine.data.languages import language

    shares = zip(prediction.labels, prediction.probabilities, strict=True)
    texts, parts = len(found.predictions), ("tokenize_ms", "queue_ms", "compute_ms")
    return {
        "label": prediction.label,
        "probability": round(prediction.probabilities[prediction.label], 4),
        "latency_ms": round(found.milliseconds / texts, 2),
        "base_model": found.base_model,
        "language": language(text),
        "label_name": prediction.labels[prediction.label],
        "probabilities": {name: round(share, 4) for name, share in shares},
        "model": model,
        "truncated": prediction.truncated,
        "timing": {part: round(getattr(found, part) / texts, 2) for part in parts},
    }


def explained(*, user: User, text: str, model: str | None) -> dict[str, Any]:
    """The answer to one text, the words that it hangs on, and the label that comes near where the model is unsure."""
    (found,) = predict(user=user, texts=[text], model=model)
    chosen = choose(models_for(user), found["model"])
    words = words_that_mattered(lambda texts: ask(chosen, texts).predictions, text, found["label"])
    tried, hinges = sum(word.weight is not None for word in words), any(word.heat for word in words)
    return found | {"words": words, "tried": tried, "hinges": hinges, "rival": rival(found["probabilities"])}


def rival(probabilities: dict[str, float]) -> tuple[str, float] | None:
    """The second label and its probability where the model is not sure of the first."""
    first, second, *_rest = [*sorted(probabilities.items(), key=lambda found: -found[1]), ("", 0.0)]
    return None if first[1] >= SURE and first[1] - second[1] >= APART else second


def choose(models: Models, name: str | None) -> Model:
    found = models.named(name) if name else models.best()
    if found is None:
        raise Conflict(_("There is no trained model yet. Train one first."), field="model")
    return found


def check_texts(texts: list[str]) -> None:
    if not texts or any(not text.strip() for text in texts):
        raise Invalid(_("Give a text that is not empty."), field="text")
    if len(texts) > TEXTS_LIMIT:
        raise Invalid(_("Give at most %d texts at once.") % TEXTS_LIMIT, field="texts")
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise Invalid(_("Give texts in valid Unicode: half of a surrogate pair is no character."), field="text")
    if any(len(text) > TEXT_LIMIT for text in texts):
        raise Invalid(_("Give texts of at most %d characters.") % TEXT_LIMIT, field="text")


def ask(model: Model, texts: list[str]) -> Answers:
    with told_in_words(model.name):
        return predictor().ask(model.folder, texts)


def load(model: Model) -> str:
    """Load a model so that the next who asks need not wait; the name of its base model."""
    with told_in_words(model.name):
        return predictor().base_model(model.folder)


@contextmanager
def told_in_words(name: str) -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        message = _("The model {name} can't be loaded: {reason}").format(name=name, reason=error)
        raise Conflict(message, field="model") from None
    except Busy as error:
        raise Overloaded(wait=error.wait) from None


@cache
def predictor() -> Predictor:
    """One per process, so that a base model is loaded once for all."""
    return Predictor(
        settings.BASE_MODELS_DIR,
        device=settings.SERVE_DEVICE,
        memory_mb=settings.SERVE_MEMORY_MB,
        batch_tokens=settings.SERVE_BATCH_TOKENS,
        patience=settings.SERVE_WAIT_SECONDS,
    )
