"""Log-probabilities of answers by the base model, each computed once and kept on disk for further runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from engine.data.preference_tokens import PreferenceTokens
from engine.storage import write_file

NAME = "log_probabilities"


class Reference:
    """The base model's log-probabilities of both answers of each preference.

    Computed for what a batch needs, so that a short run over many rows does not wait for all of them, and one preference at a time,
    so that they never depend on the others of a batch.
    compute: returns those of one preference, (2,) float64. path: the file that keeps them; None for none.
    """

    def __init__(self, preferences: int, compute: Callable[[int], np.ndarray], path: Path | None) -> None:
        self.compute = compute
        self.path = path
        self.values = np.full((preferences, 2), np.nan)
        self._take_over_saved()

    def of(self, preferences: np.ndarray) -> np.ndarray:
        """Return the log-probabilities of some preferences, by their indexes: (preferences, 2) float64."""
        for index in preferences[np.isnan(self.values[preferences, 0])].tolist():
            self.values[index] = self.compute(index)
        return self.values[preferences]

    def save(self) -> None:
        """Write what has been computed, beside what another run has written since. Raises DiskError."""
        if self.path is None or np.isnan(self.values).all():
            return
        self._take_over_saved()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.path, lambda draft: save_file({NAME: self.values}, draft))

    def _take_over_saved(self) -> None:
        """Fill in what the file has and this object lacks. A damaged file is as good as none."""
        if self.path is None:
            return
        with suppress(OSError, SafetensorError, KeyError):
            saved = load_file(self.path)[NAME]
            if saved.shape == self.values.shape:
                self.values = np.where(np.isnan(self.values), saved, self.values)


def reference_path(cache: Path | None, tokens: PreferenceTokens, base_model_hash: str, precision: str) -> Path | None:
    """Return the file of these preferences and this base model in a cache folder; None without one."""
    if cache is None:
        return None
    digest = hashlib.sha256(f"{base_model_hash} {precision}".encode())
    for array in (tokens.branches.ids, tokens.branches.is_target, tokens.branches.offsets):
        digest.update(array.tobytes())
    return cache / f"reference-{digest.hexdigest()[:32]}.safetensors"
