"""The evaluation rows that a run took for another label, as the engine has kept them."""

import json
from dataclasses import dataclass

from .models import Experiment

FILE = "artifacts/wrong_rows.json"


@dataclass(frozen=True, slots=True)
class WrongRow:
    text: str
    text_pair: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """The rows of one label that were taken for another, those that were kept of `count`."""

    label: str
    predicted: str
    count: int
    rows: list[WrongRow]


def has_wrong_rows(experiment: Experiment) -> bool:
    """Return whether rows were kept. Runs of earlier releases have none, nor has a run without an error."""
    return (experiment.folder / FILE).is_file()


def find_confusion(experiment: Experiment, label: str, predicted: str) -> Confusion | None:
    """Return the rows of a cell of the confusion matrix; None if there is no such cell, or if no rows were kept."""
    labels = experiment.labels
    if label == predicted or not {label, predicted} <= set(labels) or not has_wrong_rows(experiment):
        return None
    kept = json.loads((experiment.folder / FILE).read_text(encoding="utf-8"))
    rows = [
        WrongRow(row["text"], row.get("text_pair", ""), label, predicted, row["probability"])
        for row in kept
        if (row["label"], row["predicted"]) == (label, predicted)
    ]
    matrix = experiment.metrics.get("eval", {}).get("confusion_matrix", [])
    return Confusion(label, predicted, matrix[labels.index(label)][labels.index(predicted)], rows)
