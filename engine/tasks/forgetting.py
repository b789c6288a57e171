"""How much a language model forgets: its loss on ordinary sentences, which have nothing to do with its data, before and after training."""

from __future__ import annotations

import numpy as np
import torch

from engine.data.conversation_tokens import ConversationTokens, tokenise_conversations
from engine.data.conversations import PLAIN_TEXT, to_json
from engine.data.general_texts import TEXTS
from engine.models.causal import CausalForward, PackedConversations
from engine.models.chat_template import ChatTemplate


def general_tokens(template: ChatTemplate, max_length: int) -> ConversationTokens:
    """Return the tokens of the texts; those that are longer than the model takes are cut."""
    texts = [to_json([{"role": PLAIN_TEXT, "content": text}]) for text in TEXTS]
    return tokenise_conversations(texts, template, max_length, {})


@torch.no_grad()
def general_loss(forward: CausalForward, tokens: ConversationTokens) -> float:
    """Return the mean loss of the texts' tokens by a model in evaluation mode."""
    logs = forward.log_probabilities(PackedConversations.pack(tokens, np.arange(len(tokens.rows))))
    return -float(logs.double().mean())
