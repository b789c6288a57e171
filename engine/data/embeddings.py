"""Embed texts with the base model alone: the mean of its last hidden states over a text's tokens.

Texts go longest first, in batches of about as many tokens as fit a core's cache, through the fused encoder where it
covers the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from engine import devices
from engine.config import RunConfig
from engine.data.batches import batches_by_tokens
from engine.data.tokens import Tokens, tokenise
from engine.kernels import fused_body
from engine.models.loading import load_encoder
from engine.models.text_encoding import TextEncoding, prepare_encoding
from engine.out_of_memory import retry_with_half

BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536, "mps": 16_384}
MOST_ROWS = 1024  # of a batch
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

    base: the folder of the base model `name`. max_length: tokens that a text is truncated to.
    cache_dir: where token ids are kept for the next time. on_done: called with the number of texts that are done.

    Raises BaseModelUnavailableError if the model cannot be loaded.
    """
    plan = devices.choose(RunConfig())
    torch.set_num_threads(plan.threads)
    encoding = prepare_encoding(base, name, max_length)
    tokens = tokenise(texts, encoding.tokenizer, encoding.max_length, cache_dir)
    model = load_encoder(base, name, plan)
    forward: Forward | None = fused_body(model, plan.packed) if plan.fused_encoder else None
    if forward is None:
        forward = lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state  # noqa: E731
    embeddings = np.empty((0, 0), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for rows in batches_by_tokens(tokens.lengths, BATCH_TOKENS[plan.device.type], MOST_ROWS):
            means = _embed_batch(forward, tokens, rows, encoding, plan.device)
            if not done:
                embeddings = np.empty((len(texts), means.shape[1]), dtype=np.float32)
            embeddings[rows] = means
            done += len(rows)
            on_done(done)
    return tokens, embeddings


def _embed_batch(
    forward: Forward, tokens: Tokens, rows: np.ndarray, encoding: TextEncoding, device: torch.device
) -> np.ndarray:
    """Return the means over the tokens that are not padding, (rows, width); in smaller parts where memory runs out."""

    def embed_in_parts(size: int) -> np.ndarray:
        parts = []
        for start in range(0, len(rows), size):
            padded = tokens.padded(rows[start : start + size], encoding.padding_id, encoding.padding_side)
            ids, mask = (torch.from_numpy(array).to(device) for array in padded)
            hidden = forward(ids, mask)
            # A product with the mask: it sums the states without a copy of them, in which padding would be set to 0.
            summed = torch.bmm(mask.to(hidden.dtype)[:, None], hidden)[:, 0].float()
            parts.append((summed / mask.sum(1, keepdim=True)).cpu().numpy())
        return np.concatenate(parts)

    return retry_with_half(embed_in_parts, len(rows), device, smaller=lambda _: None)
