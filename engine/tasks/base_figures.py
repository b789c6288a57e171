"""Figures of a base model on some tokens, kept for further runs: they depend on neither adapter nor settings of the training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.data.conversation_tokens import ConversationTokens
from engine.storage import write_json

Figures = dict[str, float]


def figures_path(cache: Path | None, name: str, model: str, tokens: ConversationTokens) -> Path | None:
    """Return the file that keeps these figures; None without a cache folder. model: all that tells how the base model computes."""
    if cache is None:
        return None
    digest = hashlib.sha256(f"{name} {model}".encode())
    for array in (tokens.ids, tokens.is_target, tokens.offsets):
        digest.update(array.tobytes())
    return cache / f"base-figures-{digest.hexdigest()[:32]}.json"


def load_or_compute(path: Path | None, compute: Callable[[], Figures]) -> Figures:
    """Return the figures in the file, or compute and keep them. Raises DiskError."""
    if path is None:
        return compute()
    with suppress(OSError, ValueError, TypeError):  # a damaged file is as good as none
        return {str(name): float(value) for name, value in dict(json.loads(path.read_text(encoding="utf-8"))).items()}
    figures = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, figures)
    return figures
