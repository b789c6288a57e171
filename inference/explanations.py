"""Explain an answer: what each word of a text adds to a probability or to a score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from accounts.models import User
from engine.serve.word_importance import Explanation, Method, Word, measure_word_importance
from engine.task_types import TaskType
from experiments.results import mark_entities
from web.errors import InvalidError, LorasiteError

from . import metrics
from .selectors import Model, models_for
from .services import choose_model, engine_errors, predict, predict_texts, predictor, rival

EXPLAINED_TASKS: tuple[TaskType, ...] = ("sequence_classification", "multi_label_classification", "regression")
MOST_LABELS = 10  # of a multi-label answer that are explained, the most probable ones
DIGITS = 4


@dataclass(frozen=True, slots=True)
class ExplanationRequest:
    """How an answer is to be explained. label: the only label to explain; the answer's own if None."""

    method: Method = "leave_one_out"
    label: str | None = None


@dataclass(frozen=True, slots=True)
class LabelExplanation:
    """What the words add to the probability of a label, or to the score if `label` is None."""

    label: str | None
    content: Explanation

    @property
    def tried(self) -> int:
        """Return the number of words that were measured."""
        return sum(word.weight is not None for word in self._all_words())

    @property
    def matters(self) -> bool:
        """Return whether any word changes the value enough to be highlighted."""
        return any(word.heat for word in self._all_words())

    def _all_words(self) -> list[Word]:
        return [*self.content.words, *(self.content.pair_words or [])]


def explain_answer(
    model: Model, answer: dict[str, Any], text: str, text_pair: str | None, wanted: ExplanationRequest
) -> list[LabelExplanation]:
    """Explain the answer that the model gave to a text, or to a pair of texts: one explanation for each label.

    A multi-label answer without any label is explained by the most probable one. Raises Invalid, Conflict or OverloadedError.
    """
    labels = labels_to_explain(answer, wanted.label)
    names = list(answer.get("probabilities", {}))
    outputs = [0 if label is None else names.index(label) for label in labels]
    with metrics.count_explanation(wanted.method), engine_errors(model.name):
        if wanted.method == "integrated_gradients":
            explanations = predictor().explain_by_gradients(model.folder, text, outputs, text_pair)
        else:
            explanations = measure_word_importance(
                lambda texts, text_pairs: predict_texts(model, texts, text_pairs).predictions, text, outputs, text_pair
            )
    return [LabelExplanation(label, content) for label, content in zip(labels, explanations, strict=True)]


def labels_to_explain(answer: dict[str, Any], wanted: str | None) -> Sequence[str | None]:
    """Return the labels whose probability is explained, or None for the score; Invalid if the answer has no such label."""
    if answer["task"] not in EXPLAINED_TASKS:
        message = _("Answers of this model can't be explained word by word. Leave out explain.")
        raise InvalidError(message, field="explain")
    probabilities: dict[str, float] = answer.get("probabilities", {})
    if wanted is not None:
        if wanted not in probabilities:
            listed = ", ".join(probabilities) or "–"
            message = _("The model has no label “%(label)s”. Its labels: %(labels)s.")
            raise InvalidError(message % {"label": wanted[:80], "labels": listed}, field="explain.label")
        return [wanted]
    if not probabilities:
        return [None]
    if "label_name" in answer:
        return [answer["label_name"]]
    most_probable = sorted(probabilities, key=lambda name: -probabilities[name])
    chosen = [name for name in most_probable if name in answer["labels"]]
    return (chosen or most_probable[:1])[:MOST_LABELS]


def format_explanations(method: Method, explanations: list[LabelExplanation]) -> dict[str, Any]:
    """Return explanations in the API's shape."""
    return {
        "method": method,
        "targets": [
            {
                "label": each.label,
                "value": round(each.content.value, DIGITS),
                "words": format_words(each.content.words),
                "text_pair_words": None if each.content.pair_words is None else format_words(each.content.pair_words),
                "completeness_error": each.content.completeness_error and round(each.content.completeness_error, 6),
            }
            for each in explanations
        ],
    }


def format_words(words: list[Word]) -> list[dict[str, Any]]:
    """Return the words that were measured, with their places in the text, in code points."""
    measured = []
    start = 0
    for word in words:
        end = start + len(word.text)
        if word.weight is not None:
            measured.append({"text": word.text, "start": start, "end": end, "weight": round(word.weight, DIGITS)})
        start = end
    return measured


def rank_labels(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the labels of an answer, the likeliest first, with percentages; of several labels the chosen ones first."""
    chosen, thresholds = answer.get("labels", []), answer.get("thresholds", {})
    rows = [
        {
            "label": label,
            "percent": 100 * probability,
            "threshold": 100 * thresholds.get(label, 0),
            "chosen": label in chosen,
        }
        for label, probability in answer["probabilities"].items()
    ]
    return sorted(rows, key=lambda row: (not row["chosen"], -row["percent"]))


def answer_with_explanations(
    *, user: User, text: str, text_pair: str | None, model: str | None, method: Method
) -> dict[str, Any]:
    """Return the answer to one text, or to a pair of texts, with what the predict page shows beside it.

    template: of its task type. explanations: empty if there are none, or with the reason in `explanation_error`.
    """
    text_pairs = None if text_pair is None else [text_pair]
    (answer,) = predict(user=user, texts=[text], text_pairs=text_pairs, model=model)
    shown: dict[str, Any] = {
        "template": f"inference/answers/{answer['task']}.html",
        "explanations": [],
        "explanation_error": "",
    }
    if "label_name" in answer and answer["confident"] is None:
        shown["rival"] = rival(answer["probabilities"])
    if "probabilities" in answer:
        shown["ranked"] = rank_labels(answer)
    if "entities" in answer:
        shown["pieces"] = mark_entities(text, answer["entities"])
    if answer["task"] in EXPLAINED_TASKS:
        # Without `model`, the best one answered; its words are measured on that one even if another has become the best.
        chosen = choose_model(models_for(user), answer["model"])
        try:
            shown["explanations"] = explain_answer(chosen, answer, text, text_pair, ExplanationRequest(method))
        except LorasiteError as error:
            shown["explanation_error"] = error.message
    return answer | shown
