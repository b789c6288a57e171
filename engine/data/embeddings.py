"""Embed texts with the base model alone: the mean of its last hidden states over a text's tokens.

Texts go longest first, in batches of about as many tokens as fit a core's cache, through the fused encoder where it
covers the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from engine import devices
from engine.config import RunConfig
from engine.data.tokens import Tokens, tokenise
from engine.kernels import fused_body
from engine.models.loading import load_encoder, load_tokenizer
from engine.out_of_memory import retry_with_half

BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536, "mps": 16_384}
MOST_ROWS = 1024
Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ids and mask → (rows, tokens, width) hidden states


def embed(
    texts: Sequence[str],
    *,
    base: Path,
    name: str,
    max_length: int = 128,
    cache_dir: Path | None = None,
    on_done: Callable[[int], None] = lambda done: None,
) -> tuple[Tokens, np.ndarray]:
    """Return the texts' tokens and their embeddings, (texts, width) float32.

    base: the folder of the base model `name`. on_done: called with the number of texts that are done.

    Raises BaseModelUnavailable if the model cannot be loaded.
    """
    plan = devices.choose(RunConfig())
    torch.set_num_threads(plan.threads)
    tokenizer = load_tokenizer(base, name)
    tokens = tokenise(texts, tokenizer, min(max_length, tokenizer.model_max_length), cache_dir)
    forward = _forward(base, name, plan)
    embeddings = np.empty((0, 0), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for rows in _batches(tokens.lengths, BATCH_TOKENS[plan.device.type]):
            means = _embed_batch(forward, tokens, rows, tokenizer.pad_token_id or 0, plan.device)
            if not done:
                embeddings = np.empty((len(texts), means.shape[1]), dtype=np.float32)
            embeddings[rows] = means
            done += len(rows)
            on_done(done)
    return tokens, embeddings


def _forward(base: Path, name: str, plan: devices.DevicePlan) -> Forward:
    model = load_encoder(base, name, plan)
    fused = fused_body(model) if plan.fused_encoder else None
    return fused or (lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state)


def _batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Yield each row once, longest first so that memory runs out at once or never, about `budget` tokens at a time."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, min(MOST_ROWS, budget // int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _embed_batch(forward: Forward, tokens: Tokens, rows: np.ndarray, pad: int, device: torch.device) -> np.ndarray:
    """Return the means over the tokens that are not padding, (rows, width); in smaller parts where memory runs out."""

    def mean_hidden_states(part: np.ndarray) -> np.ndarray:
        ids, mask = (torch.from_numpy(array).to(device) for array in tokens.padded(part, pad))
        hidden = forward(ids, mask)
        summed = torch.bmm(mask.to(hidden.dtype)[:, None], hidden)[:, 0].float()
        return (summed / mask.sum(1, keepdim=True)).cpu().numpy()

    def in_parts(size: int) -> np.ndarray:
        return np.concatenate([mean_hidden_states(rows[start : start + size]) for start in range(0, len(rows), size)])

    return retry_with_half(in_parts, len(rows), device, smaller=lambda _: None)
