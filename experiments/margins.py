"""How exact a score is: half of the width of its 95 % interval."""

from collections.abc import Mapping
from typing import Any

from engine.intervals import wilson_interval


def margin_in(metrics: Mapping[str, Any], metric: str) -> float | None:
    """Return half of the width of a score's 95 % interval; None where `metrics` (metrics.json) do not tell it."""
    evaluation = metrics.get("eval", {})
    interval = evaluation.get("intervals", {}).get(metric)
    if interval is None and metric == "accuracy" and evaluation.get("confusion_matrix"):
        rows = sum(map(sum, evaluation["confusion_matrix"]))
        interval = wilson_interval(evaluation["accuracy"] * rows, rows)
    return None if interval is None else (interval[1] - interval[0]) / 2
