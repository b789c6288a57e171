"""Texts to vectors by the base model alone: the mean of its last hidden states over a text's tokens.

Each text once, longest first, in batches of about as many tokens as fit a core's cache; no gradients; the fused encoder
where the model is one that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import devices
from engine.config import RunConfig
from engine.data.tokens import Tokens, tokenise
from engine.kernels import fused_body
from engine.models.loading import load_encoder, load_tokenizer
from engine.out_of_memory import halving

BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536, "mps": 16_384}
MOST_ROWS = 1024


def embed(
    texts: Sequence[str],
    *,
    base: Path,
    name: str,
    max_length: int = 128,
    cache_dir: Path | None = None,
    on_done: Callable[[int], None] = lambda done: None,
) -> tuple[Tokens, np.ndarray]:
    """The texts' tokens, and their vectors: (texts, width) float32.

    `base` is the folder of the base model `name`; `on_done` hears how many texts are done.

    Raises BaseModelUnavailable where the model can't be loaded.
    """
    plan = devices.choose(RunConfig())
    torch.set_num_threads(plan.threads)
    tokenizer = load_tokenizer(base, name)
    tokens = tokenise(texts, tokenizer, min(max_length, tokenizer.model_max_length), cache_dir)
    forward = _forward(base, name, plan)
    found: np.ndarray | None = None
    done = 0
    with torch.inference_mode():
        for rows in _batches(tokens.lengths, BATCH_TOKENS[plan.device.type]):
            vectors = _vectors(forward, tokens, rows, tokenizer.pad_token_id or 0, plan.device)
            if found is None:
                found = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
            found[rows] = vectors
            done += len(rows)
            on_done(done)
    return tokens, np.empty((0, 0), dtype=np.float32) if found is None else found


def _forward(base: Path, name: str, plan: devices.Plan) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    model = load_encoder(base, name, plan)
    fused = fused_body(model) if plan.fused_encoder else None
    return fused or (lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state)


def _batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Every row once, longest first, so that memory runs out at once or never; about `budget` tokens at a time."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, min(MOST_ROWS, budget // int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _vectors(forward: Any, tokens: Tokens, rows: np.ndarray, pad: int, where: torch.device) -> np.ndarray:
    """Means over the tokens that are no padding: (rows, width)."""

    def means(size: int) -> np.ndarray:
        parts = [_means(forward, tokens, rows[at : at + size], pad, where) for at in range(0, len(rows), size)]
        return np.concatenate(parts)

    return halving(means, len(rows), where, smaller=lambda _: None)


def _means(forward: Any, tokens: Tokens, rows: np.ndarray, pad: int, where: torch.device) -> np.ndarray:
    ids, mask = (torch.from_numpy(part).to(where) for part in tokens.padded(rows, pad))
    hidden = forward(ids, mask)
    weights = mask.to(hidden.dtype)
    summed = torch.bmm(weights[:, None], hidden)[:, 0].float()
    return (summed / mask.sum(1, keepdim=True)).cpu().numpy()
