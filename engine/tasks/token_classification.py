"""Token classification: entities in texts, learned by cross entropy on a tag for each token.

A text that is longer than data.max_length is read in overlapping windows instead of being cut. The loop's rows are windows;
each token counts once, in the window in which it has the most context, for the loss as for the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import log_softmax
from torch.nn.functional import cross_entropy

from engine.data.entities import LABEL, ROW, select_learnable
from engine.data.entity_tags import entity_probabilities, find_entities, tag_names, tag_probabilities, tag_tokens
from engine.data.entity_windows import Windows, cut_into_windows, tokenizer_with_places
from engine.data.labelled_rows import Split
from engine.data.tokens import Tokens
from engine.task_types import HeadKind
from engine.tasks.class_weights import label_weights
from engine.tasks.entity_baseline import dictionary_entity_f1
from engine.tasks.entity_calibration import entity_calibration
from engine.tasks.entity_metrics import Entity, entity_f1, entity_metrics
from engine.tasks.evaluation_mode import evaluation_mode
from engine.tasks.focal_loss import focal_cross_entropy
from engine.tasks.metrics import WORST_ROWS, refuse_not_finite
from engine.tasks.text_task import TextTask
from engine.training.saved_model import EvaluatedTexts, spread_by_length

MOST_WINDOWS = 8  # of a text that the saved model is checked with


@dataclass(frozen=True, slots=True)
class EntitySplit:
    """The entities of a split that can be learned, and the tags of its windows' tokens that count; see engine.data."""

    windows: Windows
    entities: np.ndarray
    tags: np.ndarray
    overlapping: int
    unusable: int
    inexact: int


class Task(TextTask):
    """See TextTask. Logits are (counted tokens, tags), window by window."""

    head: ClassVar[HeadKind] = "token"
    train_tokens: Windows
    eval_tokens: Windows
    test_tokens: Windows | None
    train: EntitySplit
    held_out: dict[str, EntitySplit]  # evaluation and, if there are test rows, test
    tag_weights: torch.Tensor | None  # of each tag in the loss: (tags,); None if all are 1
    weights_on_device: torch.Tensor | None
    calibration: dict[str, Any]  # of the last evaluation; empty before, and if no entity was found

    @property
    def output_names(self) -> list[str]:
        """Return the names of the tags."""
        return tag_names(self.rows.labels)

    def tokenise(self, split: Split) -> Windows:
        """Return the windows of a split's texts. Raises BaseModelUnavailableError if the tokenizer tells no places."""
        return self._cut_into_windows(split.texts, self.cache_dir)

    def prepare_labels(self) -> None:
        """Compute the tags of all tokens, and the weight of each tag in the loss: that of its label, and 1 for O."""
        self.calibration = {}
        self.train = _tag_split(self.rows.train, self.train_tokens)
        self.held_out = {"evaluation": _tag_split(self.rows.eval, self.eval_tokens)}
        if self.rows.test and self.test_tokens:
            self.held_out["test"] = _tag_split(self.rows.test, self.test_tokens)
        counts = np.bincount(self.train.entities[:, LABEL], minlength=len(self.rows.labels))
        weights = label_weights(self.config.training.class_weights, self.rows.labels, counts)
        # Of each tag, (tags,) float32: "O", then the beginning and the inside of each label.
        self.tag_weights = None
        if weights is not None:
            self.tag_weights = torch.tensor([1.0, *np.repeat(weights, 2)], dtype=torch.float32)
        # Both, because reading a number from a GPU waits for it.
        self.weights_on_device = None if self.tag_weights is None else self.tag_weights.to(self.plan.device)

    def initial_bias(self) -> np.ndarray | None:
        """Return the logarithm of each tag's share of the training tokens; None where class weights make it mean nothing."""
        if self.tag_weights is not None:
            return None
        counts = np.bincount(self.train.tags, minlength=len(self.output_names)) + 1
        bias: np.ndarray = np.log(counts / counts.sum())
        return bias

    def training_labels(self, rows: np.ndarray) -> torch.Tensor:
        """Return the tags of the windows' counted tokens: (counted tokens,) int64."""
        return torch.from_numpy(self.train.tags[self.train_tokens.counted_of(rows)])

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return how many tokens of the windows count, or the sum of their tags' weights, so that each one counts alike."""
        tags = self.training_labels(rows)
        weight = float(len(tags)) if self.tag_weights is None else float(self.tag_weights[tags].sum())
        return weight or 1.0  # a step of mere white space has a loss of 0, not 0/0

    def sum_of_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the summed cross entropy, or focal loss. labels: (counted tokens,)."""
        training = self.config.training
        if self.config.loss == "focal":
            return focal_cross_entropy(logits, labels, training.focal_gamma, self.weights_on_device)
        return cross_entropy(
            logits,
            labels,
            weight=self.weights_on_device,
            reduction="sum",
            label_smoothing=training.label_smoothing_factor,
        )

    def logits(self, tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
        """Return the logits of the counted tokens of some windows, in fp32: (counted tokens, tags).

        Of tokens that are no windows, as the check of the model's batches has them, all count.
        """
        inputs = self.padded(tokens, rows)
        places, is_token = tokens.places(rows, self.encoding.padding_side)
        counts = is_token & tokens.is_counted[places] if isinstance(tokens, Windows) else is_token
        logits = self.forward(**inputs).flatten(0, 1)
        # Indexes from the CPU: a GPU would have to be waited for, if it had to count a mask.
        return logits.index_select(0, torch.from_numpy(np.flatnonzero(counts)).to(logits.device)).float()

    def output_rows(self, tokens: Tokens, rows: np.ndarray) -> np.ndarray:
        """Return where the logits of some windows lie among those of all."""
        assert isinstance(tokens, Windows)
        return tokens.counted_of(rows)

    def output_count(self, tokens: Tokens) -> int:
        """Return the number of all counted tokens."""
        assert isinstance(tokens, Windows)
        return len(tokens.counted)

    def refuse_not_finite(self, logits: np.ndarray, split: Split, name: str) -> None:
        """Raise EvaluationNotFiniteError for texts with a token whose logits are not finite."""
        of_texts = np.zeros((len(split), 1))
        is_finite = np.isfinite(logits).all(axis=1)
        of_texts[self.held_out[name].windows.text_of_counted()[~is_finite]] = np.nan
        refuse_not_finite(of_texts, split.texts, name)

    def score(self, logits: np.ndarray, split: Split) -> dict[str, Any]:
        """Return strict scores of the entities. loss: the mean over tokens."""
        part = self.held_out["evaluation" if split is self.rows.eval else "test"]
        loss = float(_token_losses(logits, part.tags).sum()) / max(1, len(part.tags))
        predicted = self._named(find_entities(logits, part.windows).entities)
        return entity_metrics(predicted, self._named(part.entities), self.rows.labels, loss)

    def describe(self, logits: np.ndarray) -> dict[str, Any]:
        """Return what calibration changes, and the texts with the highest mean loss with their true and predicted entities."""
        part = self.held_out["evaluation"]
        texts = self.rows.eval.texts
        of_token = _token_losses(logits, part.tags)
        lengths = np.diff(part.windows.text_starts).clip(1)
        losses = np.bincount(part.windows.text_of_counted(), weights=of_token, minlength=len(texts)) / lengths
        decoded = find_entities(logits, part.windows)
        self.calibration = entity_calibration(logits, part.windows, decoded, part.entities)
        of_tags = tag_probabilities(logits, decoded.tags, self.calibration.get("temperature", 1.0))
        probabilities = entity_probabilities(of_tags, decoded.tokens)
        worst = []
        for row in np.argsort(-losses, kind="stable")[:WORST_ROWS].tolist():
            is_own = decoded.entities[:, ROW] == row
            predicted = self._spans(decoded.entities[is_own])
            for span, probability in zip(predicted, probabilities[is_own].tolist(), strict=True):
                span["probability"] = probability
            true = self._spans(part.entities[part.entities[:, ROW] == row])
            worst.append({"text": texts[row], "entities": true, "predicted": predicted, "loss": float(losses[row])})
        # The strict F1 of marking every token as an entity of the most frequent label.
        rows = part.windows.text_of_counted()
        label = np.bincount(self.train.entities[:, LABEL], minlength=1).argmax()
        every_token = np.column_stack([rows, part.windows.spans, np.full(len(rows), label)])
        constant_f1 = entity_f1(self._named(every_token), self._named(part.entities))
        described = {"baseline": {"constant_entity_f1": constant_f1}, "worst": worst}
        return described | ({"calibration": self.calibration} if self.calibration else {})

    def baseline(self) -> dict[str, float]:
        """Return the strict F1 of marking the entities of the training rows wherever they stand."""
        train = self._named(self.train.entities)
        held_out = self._named(self.held_out["evaluation"].entities)
        f1 = dictionary_entity_f1(self.rows.train.texts, train, self.rows.eval.texts, held_out)
        return {"dictionary_entity_f1": f1}

    def answer_settings(self) -> dict[str, Any]:
        """Return the temperature of the logits, and the probability from which on answers are called confident."""
        return {name: self.calibration[name] for name in ("temperature", "confident_from") if name in self.calibration}

    def check_data(self) -> dict[str, Any]:
        """Return the facts about the data, and what of the entities can't be learned as it stands there."""
        parts = [self.train, *self.held_out.values()]
        return super().check_data() | {
            "tags": self.output_names,
            "windows": len(self.lengths),
            "texts_in_several_windows": sum(int((np.bincount(part.windows.rows) > 1).sum()) for part in parts),
            "overlapping_spans": sum(part.overlapping for part in parts),
            "unusable_spans": sum(part.unusable for part in parts),
            "inexact_spans": sum(part.inexact for part in parts),
        }

    def evaluated_texts(self) -> EvaluatedTexts:
        """Return a few evaluation texts with all of their windows, and the logits of the windows' counted tokens."""
        part = self.held_out["evaluation"]
        was_evaluated = len(self.eval_logits) > 0  # an estimate saves without an evaluation before
        lengths = np.diff(part.windows.text_starts)
        windows_of_text = np.bincount(part.windows.rows)
        is_usable = (windows_of_text <= max(MOST_WINDOWS, windows_of_text.min())) & (lengths > 0)
        if was_evaluated:
            is_finite = np.isfinite(self.eval_logits).all(axis=1)
            is_usable[part.windows.text_of_counted()[~is_finite]] = False
        rows = spread_by_length(np.flatnonzero(is_usable), lengths, self.rows.eval.texts)
        texts = [self.rows.eval.texts[row] for row in rows]
        windows = self._cut_into_windows(texts, cache_dir=None)
        if was_evaluated:
            starts = part.windows.text_starts
            logits = np.concatenate([self.eval_logits[starts[row] : starts[row + 1]] for row in rows])
        else:
            with evaluation_mode(self.model):
                logits = self.logits(windows, np.arange(len(windows.rows))).cpu().numpy()
        return EvaluatedTexts(
            texts=texts,
            text_pairs=None,
            ids=[ids.tolist() for ids in np.split(windows.ids, windows.offsets[1:-1])],
            types=[None] * len(windows.rows),
            logits=torch.from_numpy(logits).float(),
            windows=windows,
        )

    def _cut_into_windows(self, texts: list[str], cache_dir: Path | None) -> Windows:
        tokenizer = tokenizer_with_places(self.tokenizer, self.config.model.name)
        return cut_into_windows(texts, tokenizer, self.max_length, cache_dir)

    def _named(self, entities: np.ndarray) -> list[Entity]:
        """Return entities as the metrics take them."""
        return [(row, start, end, self.rows.labels[label]) for row, start, end, label in entities.tolist()]

    def _spans(self, entities: np.ndarray) -> list[dict[str, Any]]:
        """Return entities of one text as metrics.json holds them."""
        return [
            {"start": start, "end": end, "label": self.rows.labels[label]}
            for _row, start, end, label in entities.tolist()
        ]


def _tag_split(split: Split, windows: Windows) -> EntitySplit:
    learnable = select_learnable(split.texts, split.labels)
    tagged = tag_tokens(learnable.entities, windows)
    return EntitySplit(
        windows, learnable.entities, tagged.tags, learnable.overlapping, learnable.unusable, tagged.inexact
    )


def _token_losses(logits: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Return the cross entropy of each counted token: (counted tokens,)."""
    return -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(tags)), tags]
