"""What each word adds to an answer, by integrated gradients (Sundararajan et al., arXiv 1703.01365).

The embeddings of a text's tokens are moved in a straight line from those of a token that says nothing to their own; special
tokens stay as they are. The gradient of the answer, averaged along the line, times the distance is what a token adds. With
infinitely many steps these sum up to the difference between the answers at both ends; how far they are from it is reported.

It needs the gradients of the whole model, so a model that shares its base model is loaded a second time, merged. It is
slower than leaving words out: each step costs three predictions of the text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.serve.answers import output_values
from engine.serve.batch import BatchRow
from engine.serve.errors import PredictionFailedError
from engine.serve.merged_model import MergedModel
from engine.serve.model_files import ModelInfo
from engine.serve.tokenizer import ServedTokenizer, TokenPlace
from engine.serve.word_importance import Explanation, Piece, make_explanation, split_into_pieces

STEPS = 32
FEWEST_STEPS = 8
MOST_TOKENS = 1024  # computed at once, all steps of a batch together: bounds the memory
MOST_SECONDS = 10.0  # beyond it fewer steps are taken
LARGEST_DIFFERENCE = 1e-3  # between the logits of embeddings and of token ids


@dataclass(frozen=True, slots=True)
class PathEnds:
    """The embeddings of a text and of one that says nothing, (tokens, width) each, and the values there: (outputs,)."""

    text: Tensor
    neutral: Tensor
    value_of_text: Tensor
    value_of_neutral: Tensor


def explain_by_gradients(
    model: MergedModel,
    tokenizer: ServedTokenizer,
    info: ModelInfo,
    text: str,
    outputs: Sequence[int],
    text_pair: str | None = None,
    seconds: float = MOST_SECONDS,
) -> list[Explanation]:
    """Return what each piece of a text, or of a pair of texts, adds to each of some outputs of a model.

    Raises PredictionFailedError if the model or the tokenizer does not allow it.
    """
    text_pairs = None if text_pair is None else [text_pair]
    (encoded,) = tokenizer.encode([text], info.max_length, text_pairs, info.token_types)
    try:
        places = tokenizer.find_tokens(text, info.max_length, text_pair)
    except LookupError as error:
        raise PredictionFailedError(f"{error}; choose leave_one_out") from error
    neutral_id = model.padding_id if tokenizer.neutral_id is None else tokenizer.neutral_id
    neutral_ids = [token if place is None else neutral_id for token, place in zip(encoded.ids, places, strict=True)]
    row = BatchRow(encoded.ids, None, encoded.types)
    started = time.monotonic()
    ends = compute_ends(model, info, row, neutral_ids)
    seconds_per_row = (time.monotonic() - started) / 3
    # A backward pass to the embeddings costs as much as a forward pass, and each output needs one of its own.
    steps = int(seconds / (seconds_per_row * (1 + len(outputs))))
    weights = integrate(model, info, row, ends, outputs, max(FEWEST_STEPS, min(STEPS, steps)))
    texts = [text] if text_pair is None else [text, text_pair]
    scale = info.score_deviation if info.task == "regression" else 1.0
    explanations = []
    for output, weight_of_token in zip(outputs, weights, strict=True):
        value = float(ends.value_of_text[output])
        missing = abs(float(weight_of_token.sum()) - (value - float(ends.value_of_neutral[output])))
        by_piece = sum_by_piece(places, weight_of_token.tolist(), texts)
        explanations.append(make_explanation(texts, output, value, by_piece, scale, missing))
    return explanations


@torch.no_grad()
def compute_ends(model: MergedModel, info: ModelInfo, row: BatchRow, neutral_ids: list[int]) -> PathEnds:
    """Compute both ends of the path. Raises PredictionFailedError if embeddings can't stand for token ids in this model."""
    (served,) = model.outputs([row])
    text, neutral = model.embed(row.ids), model.embed(neutral_ids)
    logits = model.logits_of_embeddings(torch.stack([text, neutral]), row.types)
    if not torch.allclose(logits[0].cpu(), served.logits, atol=LARGEST_DIFFERENCE, rtol=LARGEST_DIFFERENCE):
        raise PredictionFailedError("the gradients of its base model can't be computed; choose leave_one_out")
    values = output_values(logits, info)
    return PathEnds(text, neutral, values[0], values[1])


def integrate(
    model: MergedModel, info: ModelInfo, row: BatchRow, ends: PathEnds, outputs: Sequence[int], steps: int
) -> Tensor:
    """Return what each token adds to each of some outputs, on the CPU: (outputs, tokens)."""
    difference = ends.text - ends.neutral
    middles = (torch.arange(steps, device=difference.device) + 0.5) / steps
    gradients = torch.zeros(len(outputs), *difference.shape, device=difference.device)
    for part in middles.split(max(1, MOST_TOKENS // len(row.ids))):
        points = (ends.neutral + part[:, None, None] * difference).requires_grad_()
        values = output_values(model.logits_of_embeddings(points, row.types), info)
        for i, output in enumerate(outputs):
            is_last = i == len(outputs) - 1
            (gradient,) = torch.autograd.grad(values[:, output].sum(), points, retain_graph=not is_last)
            gradients[i] += gradient.sum(0)
    return (gradients / steps * difference).sum(-1).cpu()


def sum_by_piece(places: list[TokenPlace | None], weights: list[float], texts: list[str]) -> dict[Piece, float]:
    """Return the summed weights of the tokens of each piece. A token belongs to the piece that it overlaps most."""
    pieces = split_into_pieces(texts)
    sums: dict[Piece, float] = {}
    for place, weight in zip(places, weights, strict=True):
        if place is not None:
            which, start, end = place
            piece = max(pieces[which], key=lambda piece: min(end, piece[2]) - max(start, piece[1]))
            sums[piece] = sums.get(piece, 0.0) + weight
    return sums
