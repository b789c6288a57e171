"""Compare an exported language model with the trained one: the probabilities of held-out answers, and what both write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.errors import ExportDiffersError
from engine.export.compared_prompts import ComparedConversations
from engine.export.comparison import ExportCheck
from engine.models.causal import PackedConversations
from engine.sentences import Sentence, gettext_noop, join_sentences
from engine.tasks.answer_writers import TransformersWriter
from engine.tasks.answers import write_answers

LONGEST_ANSWER = 64  # tokens that both models write to a prompt
BATCH = 20  # prompts that are answered at once


class Limits(NamedTuple):
    """How far log-probabilities of answer tokens may be off: any of them, and their mean."""

    largest: float
    mean: float


# Measured on SmolLM2-135M: see docs/language-models.md. A mistake in a mapping is off by whole numbers.
LIMITS = {
    "safetensors": Limits(0.01, 0.001),
    "peft": Limits(0.01, 0.001),
    "gguf-f16": Limits(0.25, 0.01),
    "gguf-q8_0": Limits(2.0, 0.1),
}


@dataclass(frozen=True, slots=True)
class LanguageModelCheck(ExportCheck):
    """How an exported language model answered beside the trained one.

    texts: prompts. equal_answers: share of prompts to which both write the same, None for plain texts. largest_change, mean_change: of
    the log-probabilities of held-out answers' tokens. equal_tokens: share of conversations that the exported tokenizer reads as the same
    tokens; None where nothing on this machine reads it. prompts: how many of them are of which kind, as ComparedConversations has them.
    """

    mean_change: float
    equal_tokens: float | None
    prompts: dict[str, int]

    @property
    def sentence(self) -> str:
        """Return the figures as a sentence."""
        changes = Sentence(
            gettext_noop(
                "On {prompts}, log-probabilities of expected tokens changed by {mean:.2g} on average and by {largest:.2g} at most."
            ),
            prompts=describe_prompts(self.prompts),
            mean=self.mean_change,
            largest=self.largest_change,
        )
        if self.equal_answers is None:
            return changes
        equal = Sentence(gettext_noop("{share:.1%} of the greedy answers are the same."), share=self.equal_answers)
        return join_sentences([changes, equal])


def describe_prompts(counts: dict[str, int]) -> Sentence:
    """Return how many prompts were compared, and of which kind they were."""
    if "random" in counts:
        return Sentence(gettext_noop("{count:,} random prompts"), count=counts["random"])
    if counts.keys() == {"held_out"}:
        return Sentence(gettext_noop("{count:,} held-out prompts"), count=counts["held_out"])
    return Sentence(
        gettext_noop(
            "{count:,} prompts ({held_out:,} held out, {training:,} of training rows, {parts:,} parts of both)"
        ),
        count=sum(counts.values()),
        **{kind: counts.get(kind, 0) for kind in ("held_out", "training", "parts")},
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model makes of the conversations: log-probabilities of the tokens of their answers, and its own answers."""

    logs: list[Tensor]
    written: list[str]


@torch.inference_mode()
def measure(model: Any, compared: ComparedConversations, report_done: Callable[[int, int], None]) -> Measured:
    """Compute what a model of transformers makes of the conversations.

    report_done: called with how many of all log-probabilities and answers are done.
    """
    logs = []
    count = sum(compared.counts.values())
    for index in range(count):
        report_done(index, 2 * count)
        packed = PackedConversations.pack(compared.tokens, np.array([index]))
        logits = model(input_ids=packed.ids).logits[0, packed.sources].float()
        logs.append(logits.log_softmax(dim=-1).gather(1, packed.targets[:, None])[:, 0])
    longest = min(compared.tokens.longest_answer, LONGEST_ANSWER)
    written = []
    writer = TransformersWriter(model, compared.end_id)
    for start in range(0, len(compared.conversations), BATCH):
        report_done(count + start, 2 * count)
        batch = compared.conversations[start : start + BATCH]
        written += write_answers(writer, compared.template, batch, longest, BATCH).written
    return Measured(logs, written)


def compare_measured(
    expected: Measured, actual: Measured, format: Any, equal_tokens: float | None, prompts: dict[str, int]
) -> LanguageModelCheck:
    """Return how much the exported model's figures differ from the trained one's."""
    changes = (torch.cat(actual.logs) - torch.cat(expected.logs)).abs().nan_to_num(nan=torch.inf)
    equal = [one == other for one, other in zip(expected.written, actual.written, strict=True)]
    return LanguageModelCheck(
        format,
        len(expected.logs),
        float(np.mean(equal)) if equal else None,
        float(changes.max()),
        float(changes.mean()),
        equal_tokens,
        prompts,
    )


def require_close(check: LanguageModelCheck) -> None:
    """Raise ExportDiffersError if the exported model is further off than its format explains."""
    limits = LIMITS[check.format]
    if (
        check.largest_change <= limits.largest
        and check.mean_change <= limits.mean
        and check.equal_tokens in (None, 1.0)
    ):
        return
    figures = [check.sentence]
    if check.equal_tokens not in (None, 1.0):
        tokens = Sentence(gettext_noop("{share:.1%} of them are read as the same tokens."), share=check.equal_tokens)
        figures.append(tokens)
    raise ExportDiffersError(
        Sentence(
            gettext_noop(
                "The exported files do not answer as the model does, so they were removed. {figures} Allowed are "
                "{mean:g} and {largest:g}. Export to another format, or use the adapter with PEFT."
            ),
            figures=join_sentences(figures),
            mean=limits.mean,
            largest=limits.largest,
        ),
        equal_answers=check.equal_answers,
        largest_change=check.largest_change,
    )
