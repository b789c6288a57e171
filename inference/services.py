"""Predictions for people: which model, may they use it, what does it say."""

from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.errors import Conflict, Invalid
from accounts.models import User
from audit.services import record
from experiments.models import Experiment
from experiments.selectors import experiment_for, experiments_for

from . import metrics, selectors
from .engine.predictor import Loaded, Prediction, Predictor, Unreadable
from .engine.words import words_that_mattered

TEXTS_LIMIT = 64
TEXT_LIMIT = 20_000  # characters
SURE, APART = 0.6, 0.15  # below such a probability, or with the next label so near, the model is not sure


def predict(*, user: User, texts: list[str], model: str | None = None) -> list[dict[str, Any]]:
    """An answer per text, in their order; `model` is an experiment's name, the best visible one when left out."""
    check_texts(texts)
    experiment = choose(user, model)
    found = answers(experiment.final_model, experiment.name, texts)
    record("model.predict", user=user, obj=experiment, texts=len(texts))
    return found


def answers(folder: Path, name: str, texts: list[str]) -> list[dict[str, Any]]:
    """What the model `name`, whose final_model folder this is, says of each text."""
    with metrics.measured(len(texts)):
        loaded = load(folder, name)
        found, milliseconds = loaded.predict(texts)
    each = round(milliseconds / len(texts), 2)
    return [answer(p, text, name, loaded.base_model, each) for p, text in zip(found, texts, strict=True)]


def answer(found: Prediction, text: str, model: str, base_model: str, milliseconds: float) -> dict[str, Any]:
    from .engine.language import language

    return {
        "label": found.label,
        "probability": round(found.probabilities[found.label], 4),
        "latency_ms": milliseconds,
        "base_model": base_model,
        "language": language(text),
        "label_name": found.labels[found.label],
        "probabilities": {n: round(p, 4) for n, p in zip(found.labels, found.probabilities, strict=True)},
        "model": model,
        "truncated": found.truncated,
    }


def explained(*, user: User, text: str, model: str | None) -> dict[str, Any]:
    """The answer to one text, the words that it hangs on, and the label that comes near where the model is unsure."""
    (found,) = predict(user=user, texts=[text], model=model)
    loaded = load(choose(user, found["model"]).final_model, found["model"])
    words = words_that_mattered(lambda texts: loaded.predict(texts)[0], text, found["label"])
    tried, hinges = sum(word.weight is not None for word in words), any(word.heat for word in words)
    return found | {"words": words, "tried": tried, "hinges": hinges, "rival": rival(found["probabilities"])}


def rival(probabilities: dict[str, float]) -> tuple[str, float] | None:
    """The second label and its probability where the model is not sure of the first."""
    first, second, *_rest = [*sorted(probabilities.items(), key=lambda found: -found[1]), ("", 0.0)]
    return None if first[1] >= SURE and first[1] - second[1] >= APART else second


def choose(user: User, name: str | None) -> Experiment:
    if name:
        experiment = experiment_for(user, name)
        if not experiment.is_ready:
            raise Conflict(
                _("This run has left no model yet. Wait until it is done, or choose another."), field="model"
            )
        return experiment
    best = selectors.with_model(experiments_for(user)).first()
    if best is None:
        raise Conflict(_("There is no trained model yet. Train one first."), field="model")
    return best


def check_texts(texts: list[str]) -> None:
    if not texts or any(not text.strip() for text in texts):
        raise Invalid(_("Give a text that is not empty."), field="text")
    if len(texts) > TEXTS_LIMIT:
        raise Invalid(_("Give at most %d texts at once.") % TEXTS_LIMIT, field="texts")
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise Invalid(_("Give texts in valid Unicode: half of a surrogate pair is no character."), field="text")
    if any(len(text) > TEXT_LIMIT for text in texts):
        raise Invalid(_("Give texts of at most %d characters.") % TEXT_LIMIT, field="text")


def load(folder: Path, name: str) -> Loaded:
    try:
        return predictor().get(folder)
    except Unreadable as error:
        message = _("The model {name} can't be loaded: {reason}").format(name=name, reason=error)
        raise Conflict(message, field="model") from None


@cache
def predictor() -> Predictor:
    """One per process, so that a model is loaded once."""
    return Predictor(settings.BASE_MODELS_DIR)
