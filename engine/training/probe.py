"""Check before the first step that a model answers a text in a batch as it answers it alone.

It finds operations that the precision lacks on this device, and models that read padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from engine.data.tokens import Tokens
from engine.out_of_memory import is_out_of_memory
from engine.sentences import Sentence, gettext_noop

LONGEST_PROBE = 64  # tokens, so that the check takes no time
# Largest accepted difference of logits: absolute, and relative to the largest one. bf16 has eight bits for a number.
TOLERANCES = {torch.float32: (1e-3, 1e-3), torch.bfloat16: (0.05, 0.05)}


def probe_texts(tokens: Tokens, special_ids: Sequence[int] = ()) -> tuple[Tokens, Tokens, Tokens]:
    """Return a short text, a long one and a batch of both, of the shortest and the longest of `tokens`.

    What is too long is cut out of the middle, but special tokens stay: T5 and BART count them.
    """
    lengths = np.where(
        tokens.lengths, tokens.lengths, tokens.longest
    )  # some tokenizers have no token for an empty text
    shortest = int(lengths.argmin())
    longest = int(lengths.argmax())
    long = _cut_middle(tokens.ids[tokens.offsets[longest] : tokens.offsets[longest + 1]], LONGEST_PROBE, special_ids)
    short = tokens.ids[tokens.offsets[shortest] : tokens.offsets[shortest + 1]]
    short = _cut_middle(short, max(2, len(long) // 2), special_ids)
    return _join(short), _join(long), _join(short, long)


def find_fault(
    model: nn.Module,
    logits: Callable[[Tokens, np.ndarray], torch.Tensor],
    tokens: Tokens,
    dtype: torch.dtype,
    special_ids: Sequence[int] = (),
) -> str | None:
    """Return why a model can't be trained in batches, as the end of a sentence that begins with its name; None if it can.

    logits: computes rows of `Tokens` with the model. tokens: those of the training texts. dtype: of the frozen weights.
    special_ids: of the tokens that the tokenizer puts around and between texts.
    Leaves the model without gradients and all random generators as they were. Raises what means that memory ran out.
    """
    short, long, both = probe_texts(tokens, special_ids)
    one = np.arange(1)
    two = np.arange(2)
    gpus = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    was_training = model.training
    try:
        with torch.random.fork_rng(devices=list(gpus)):
            model.train()
            logits(both, two).sum().backward()
            model.eval()
            with torch.inference_mode():
                alone = torch.cat([logits(short, one), logits(long, one)])
                difference = (logits(both, two) - alone).abs().max()
    except Exception as error:  # transformers, torch and PEFT raise errors of all kinds
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return Sentence(gettext_noop("can't compute a batch ({reason})"), reason=reason)
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
    absolute, relative = TOLERANCES[dtype]
    if not bool(alone.isfinite().all()):
        return Sentence(gettext_noop("gives answers that are not finite numbers"))
    if not float(difference) <= absolute + relative * float(alone.abs().max()):
        return Sentence(
            gettext_noop("answers a text in a batch differently than alone (logits differ by {difference:.2g})"),
            difference=float(difference),
        )
    return None


def _cut_middle(ids: np.ndarray, most: int, special_ids: Sequence[int]) -> np.ndarray:
    """Return at most `most` ids, or only the special ones if there are more of them."""
    excess = max(0, len(ids) - most)
    ordinary = np.flatnonzero(~np.isin(ids, special_ids))
    first = max(0, len(ordinary) - excess + 1) // 2
    return np.delete(ids, ordinary[first : first + excess])


def _join(*texts: np.ndarray) -> Tokens:
    offsets = np.cumsum([0, *map(len, texts)])
    return Tokens(np.concatenate(texts), offsets, truncated=0)
