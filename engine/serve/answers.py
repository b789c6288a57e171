"""What a model answers to a text, by its task type; made of its logits with what was fitted on held-out rows.

Importing this module imports no torch: a web process may never predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.serve.model_files import ModelInfo

if TYPE_CHECKING:
    import torch

    from engine.serve.batch import RowOutput

EVEN = 0.5  # the threshold of a label for which none was chosen


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest label of a text: its index; probabilities: one per label, in their order.

    confident: whether at least 90 % of the held-out rows with such a probability were right; None if that is not known.
    """

    label: int
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    truncated: bool
    features: torch.Tensor | None = None
    confident: bool | None = None


@dataclass(frozen=True, slots=True)
class LabelsPrediction:
    """The labels of a text, any number of them; probabilities and thresholds: one per label of the model, in their order."""

    chosen: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    thresholds: tuple[float, ...]
    truncated: bool
    features: torch.Tensor | None = None
    confident: bool | None = None


@dataclass(frozen=True, slots=True)
class ScorePrediction:
    """The score of a text, in the unit of the data. deviation: the standard deviation of the training rows' scores."""

    score: float
    truncated: bool
    features: torch.Tensor | None = None
    confident: bool | None = None
    deviation: float = 1.0


@dataclass(frozen=True, slots=True)
class EntityAnswer:
    """An entity in a text. start, end: in code points. probability: of its least certain token; see entity_tags."""

    text: str
    start: int
    end: int
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class EntitiesPrediction:
    """The entities of a text, in their order. Long texts are read in windows, so that none is truncated.

    confident: whether at least 90 % of the held-out texts whose least certain token has such a probability were right.
    """

    entities: tuple[EntityAnswer, ...]
    truncated: bool = False
    features: torch.Tensor | None = None
    confident: bool | None = None


Answer = Prediction | LabelsPrediction | ScorePrediction | EntitiesPrediction


def output_values(logits: torch.Tensor, info: ModelInfo) -> torch.Tensor:
    """Return what people read of a model's outputs: probabilities, or scores in the unit of the data. (..., outputs)."""
    if info.task == "regression":
        return logits.double() * info.score_deviation + info.score_mean
    if info.task == "multi_label_classification":
        temperatures = info.temperatures or (1.0,) * len(info.labels)
        return (logits.float() / logits.float().new_tensor(temperatures)).sigmoid()
    return (logits.float() / info.temperature).softmax(-1)


def values_of(answer: Answer) -> tuple[float, ...]:
    """Return what of an answer can be explained: the probability of each label, or the score; nothing of entities."""
    if isinstance(answer, EntitiesPrediction):
        return ()
    return (answer.score,) if isinstance(answer, ScorePrediction) else answer.probabilities


def make_answer(output: RowOutput, info: ModelInfo, truncated: bool) -> Answer:
    """Return the answer of a model to one text."""
    values = tuple(output_values(output.logits, info).tolist())
    if info.task == "regression":
        return ScorePrediction(values[0], truncated, output.features, deviation=info.score_deviation)
    if info.task == "multi_label_classification":
        return _choose_labels(values, output, info, truncated)
    likeliest = values.index(max(values))
    confident = None if info.confident_from is None else values[likeliest] >= info.confident_from
    return Prediction(likeliest, info.labels, values, truncated, output.features, confident)


def _choose_labels(
    probabilities: tuple[float, ...], output: RowOutput, info: ModelInfo, truncated: bool
) -> LabelsPrediction:
    thresholds = info.thresholds or (EVEN,) * len(info.labels)
    decided = [probability >= threshold for probability, threshold in zip(probabilities, thresholds, strict=True)]
    confident = None
    if info.confident_from is not None:
        least = min(p if is_chosen else 1 - p for p, is_chosen in zip(probabilities, decided, strict=True))
        confident = least >= info.confident_from
    chosen = tuple(label for label, is_chosen in zip(info.labels, decided, strict=True) if is_chosen)
    return LabelsPrediction(chosen, info.labels, probabilities, thresholds, truncated, output.features, confident)
