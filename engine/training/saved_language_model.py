"""Check that a saved language model gives held-out answers the probabilities that it had in training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from engine.data.conversation_tokens import tokenise_conversations
from engine.devices import DevicePlan
from engine.models.causal import PackedConversations
from engine.models.chat_template import ChatTemplate
from engine.models.loading import attach_adapter, load_language_model
from engine.models.text_encoding import load_tokenizer
from engine.sentences import Sentence, gettext_noop
from engine.training.saved_model import (
    FP32_TOLERANCE,
    SavedModelCheck,
    Tolerance,
    exceeds,
    saved_model_differs,
    verify_saved_files,
)

# Accepted differences of log-probabilities. In bf16, logits between 16 and 32 lie 0.125 apart, and one of many targets is rounded often.
TOLERANCES = {torch.float32: FP32_TOLERANCE, torch.bfloat16: Tolerance(1.0, 0.1)}


@dataclass(frozen=True, slots=True)
class SavedTargets:
    """Held-out conversations as JSON, as they were packed in training, and the log-probabilities of their targets, each (targets,).

    max_length: tokens of the windows that plain texts were cut into; of such a text, some windows may be packed.
    """

    texts: list[str]
    max_length: int
    packed: list[PackedConversations]
    log_probabilities: list[Tensor]


def check_saved_language_model(folder: Path, base: Path, plan: DevicePlan, evaluated: SavedTargets) -> SavedModelCheck:
    """Load the final model in `folder` as plain PEFT does, and compare each conversation, computed alone.

    Raises CheckpointDamagedError if a file is not as it was written, else SavedModelDiffersError.
    """
    verify_saved_files(folder)
    template = ChatTemplate(load_tokenizer(folder, "the saved model"), "the saved model")
    skipped: dict[str, int] = {}
    tokens = tokenise_conversations(evaluated.texts, template, evaluated.max_length, skipped)
    read = {tuple(ids.tolist()) for ids in np.split(tokens.ids, tokens.offsets[1:-1])}
    if skipped or not read.issuperset(tuple(each.ids[0].tolist()) for each in evaluated.packed):
        raise saved_model_differs(
            Sentence(
                gettext_noop("its tokenizer or chat template reads a conversation otherwise than the training did")
            ),
            "model.name",
        )
    model = attach_adapter(load_language_model(base, "the base model", plan), folder).to(plan.device).eval()
    differences = []
    for packed, expected in zip(evaluated.packed, evaluated.log_probabilities, strict=True):
        with torch.inference_mode():
            logits = cast(Tensor, model(input_ids=packed.ids.to(plan.device)).logits)[0].float().cpu()
        actual = logits[packed.sources].log_softmax(dim=-1).gather(1, packed.targets[:, None])[:, 0]
        differences.append((actual - expected).abs().nan_to_num(nan=torch.inf))
    of_all_targets = torch.cat(differences)
    largest = float(of_all_targets.max())
    if exceeds(of_all_targets, TOLERANCES[plan.dtype]):
        field = "model.name" if plan.precision == "fp32" else "training.precision"
        raise saved_model_differs(
            Sentence(gettext_noop("in plain PEFT, its log-probabilities are up to {largest:.3g} off"), largest=largest),
            field,
            difference=largest,
        )
    return SavedModelCheck(len(evaluated.texts), largest, served=False)
