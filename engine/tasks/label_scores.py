"""Precision, recall and F1 from counts, where an answer holds any number of labels: multi-label texts, entities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How often each label was rightly predicted, predicted at all, and true: (labels,) integers each."""

    hits: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    def micro_scores(self) -> dict[str, float]:
        """Return precision, recall and F1 over all labels together; 0 where there is nothing to divide by."""
        hits, predicted, true = (int(counts.sum()) for counts in (self.hits, self.predicted, self.true))
        return {
            "precision": hits / max(1, predicted),
            "recall": hits / max(1, true),
            "f1": 2 * hits / max(1, predicted + true),
        }

    def macro_scores(self) -> dict[str, float]:
        """Return the means of precision, recall and F1 over the labels that are true or predicted at least once."""
        present = (self.predicted + self.true) > 0
        if not present.any():
            return {"precision": 0.0, "recall": 0.0, "f1": 0.0}
        return {name: float(scores[present].mean()) for name, scores in self._scores().items()}

    def per_label(self, names: list[str]) -> dict[str, dict[str, float | int | None]]:
        """Return precision, recall, F1 and support (how often the label is true) by the labels' names."""
        scores = self._scores()
        return {
            name: {**{key: float(values[index]) for key, values in scores.items()}, "support": int(self.true[index])}
            for index, name in enumerate(names)
        }

    def without_rows(self, names: list[str]) -> list[str]:
        """Return the names of the labels that are true nowhere."""
        return [name for name, count in zip(names, self.true, strict=True) if not count]

    def _scores(self) -> dict[str, np.ndarray]:
        """Return precision, recall and F1 of each label: (labels,) each, as scikit-learn's with zero_division=0."""
        return {
            "precision": self.hits / np.maximum(1, self.predicted),
            "recall": self.hits / np.maximum(1, self.true),
            "f1": 2 * self.hits / np.maximum(1, self.predicted + self.true),
        }
