"""What an answer looks like in the API and in a terminal, by the task type of its model.

A further task type is one more entry of ANSWER_FORMATS, of `serializers.ANSWER_FIELDS`, and a template of its name in
templates/inference/answers/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from engine.serve.answers import Answer, EntitiesPrediction, LabelsPrediction, Prediction, ScorePrediction
from engine.task_types import TaskType

BAR = 30  # characters of the bar of a probability of 1
DIGITS = 4  # of probabilities and scores


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How the answers of one task type are shown.

    content: from an answer of the engine to the fields that the API has for this task type alone. lines: from an answer of
    the API to lines for a terminal; the first one goes on with the model's name.
    """

    task: TaskType
    content: Callable[[Any], dict[str, Any]]
    lines: Callable[[dict[str, Any]], list[str]]


def label_content(answer: Prediction) -> dict[str, Any]:
    """Return the likeliest label and the probability of each."""
    return {
        "label": answer.label,
        "probability": round(answer.probabilities[answer.label], DIGITS),
        "label_name": answer.labels[answer.label],
        "probabilities": _by_label(answer.labels, answer.probabilities),
    }


def labels_content(answer: LabelsPrediction) -> dict[str, Any]:
    """Return the chosen labels, and the probability and the threshold of each."""
    return {
        "labels": list(answer.chosen),
        "probabilities": _by_label(answer.labels, answer.probabilities),
        "thresholds": _by_label(answer.labels, answer.thresholds),
    }


def entities_content(answer: EntitiesPrediction) -> dict[str, Any]:
    """Return the entities in their order; start and end count code points."""
    entities = [asdict(entity) for entity in answer.entities]
    return {"entities": [entity | {"probability": round(entity["probability"], DIGITS)} for entity in entities]}


def labels_lines(answer: dict[str, Any]) -> list[str]:
    """Return the chosen labels, and a bar for each one's probability; chosen ones are marked."""
    lines = _bars(answer["probabilities"])
    marks = ["✓" if name in answer["labels"] else " " for name in answer["probabilities"]]
    marked = [f"{mark}{line[1:]}" for mark, line in zip(marks, lines, strict=True)]
    return [", ".join(answer["labels"]) or "no label", *marked]


def entities_lines(answer: dict[str, Any]) -> list[str]:
    """Return how many entities there are, and a line for each."""
    entities = answer["entities"]
    first = "1 entity" if len(entities) == 1 else f"{len(entities) or 'no'} entities"
    return [
        first,
        *(f"  {e['start']:>5}–{e['end']:<5} {e['probability']:.4f}  {e['label']}: {e['text']}" for e in entities),
    ]


def _by_label(labels: tuple[str, ...], numbers: tuple[float, ...]) -> dict[str, float]:
    return {label: round(number, DIGITS) for label, number in zip(labels, numbers, strict=True)}


def _bars(probabilities: dict[str, float]) -> list[str]:
    width = max(map(len, probabilities))
    return [
        f"  {name:{width}}  {probability:.4f}  {'█' * round(BAR * probability)}".rstrip()
        for name, probability in probabilities.items()
    ]


ANSWER_FORMATS: dict[type[Answer], AnswerFormat] = {
    Prediction: AnswerFormat(
        "sequence_classification",
        label_content,
        lambda answer: [answer["label_name"], *_bars(answer["probabilities"])],
    ),
    LabelsPrediction: AnswerFormat("multi_label_classification", labels_content, labels_lines),
    ScorePrediction: AnswerFormat(
        "regression",
        lambda answer: {"score": round(answer.score, DIGITS)},
        lambda answer: [f"{answer['score']:.4g}"],
    ),
    EntitiesPrediction: AnswerFormat("token_classification", entities_content, entities_lines),
}
FORMATS_BY_TASK = {each.task: each for each in ANSWER_FORMATS.values()}


def format_content(answer: Answer) -> dict[str, Any]:
    """Return the part of an answer that depends on the model's task type."""
    answer_format = ANSWER_FORMATS[type(answer)]
    return {"task": answer_format.task, **answer_format.content(answer)}
