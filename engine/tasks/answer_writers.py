"""Two ways of writing greedy answers with a model in memory: by transformers, and by our decoder in a fraction of the time."""

from __future__ import annotations

import copy
from collections import deque
from itertools import chain
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from engine.config import RunConfig
from engine.devices import DevicePlan
from engine.kernels.int8 import can_compile
from engine.serve.adapter import SequenceAdapter
from engine.serve.adapter_loading import LoraPair, join_pairs
from engine.serve.continuous_batching import step_answers
from engine.serve.decoder import SharedDecoder
from engine.serve.generated_answer import GeneratingAnswer
from engine.serve.key_value_cache import BLOCK, bytes_per_token
from engine.serve.text_stream import TextStream
from engine.serve.token_sampler import TokenSampler

BATCH = 50  # prompts that transformers answers at a time
PLACES = 64  # answers that our decoder writes at a time: with fewer rows, a product takes longer for each
PROMPT_TOKENS = 1024  # that it reads in a step
CACHE_BYTES = 512 * 2**20  # of keys and values


class AnswerWriter(Protocol):
    """Writes what follows prompts."""

    def __call__(self, prompts: list[list[int]], limit: int) -> list[list[int]]:
        """Return the likeliest tokens after each prompt, at most `limit` and up to the one that ends the answer."""
        ...


class TransformersWriter:
    """Lets a model of transformers write. Shorter prompts are padded on the left."""

    def __init__(self, model: Any, end_id: int) -> None:
        self.model = model
        self.end_id = end_id

    def __call__(self, prompts: list[list[int]], limit: int) -> list[list[int]]:
        """See AnswerWriter."""
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers: list[list[int]] = [[]] * len(prompts)
        for start in range(0, len(by_length), BATCH):
            batch = by_length[start : start + BATCH]
            for index, answer in zip(batch, self._generate([prompts[index] for index in batch], limit), strict=True):
                answers[index] = answer
        return answers

    def _generate(self, prompts: list[list[int]], limit: int) -> list[list[int]]:
        length = max(map(len, prompts))
        padded = [[self.end_id] * (length - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        generated = self.model.generate(
            input_ids=torch.tensor(padded, device=self.model.device),
            attention_mask=torch.tensor(mask, device=self.model.device),
            max_new_tokens=limit,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=self.end_id,
            pad_token_id=self.end_id,
        )
        return cast(list[list[int]], generated[:, length:].tolist())


class DecoderWriter:
    """Lets a model that is being trained write as it would when it is served: in fp32, whatever the precision of training.

    skeleton: the modules of the base model, which share its weights, before it got the adapter. adapted: the same with the adapter.
    tokenizer: that of transformers. The weights of linear layers are not copied.
    """

    def __init__(self, skeleton: Any, adapted: nn.Module, tokenizer: Any, end_id: int) -> None:
        self.skeleton = skeleton
        self.adapted = adapted
        self.tokenizer = tokenizer
        self.end_ids = frozenset([end_id])

    def __call__(self, prompts: list[list[int]], limit: int) -> list[list[int]]:
        """See AnswerWriter. Keys and values of several answers share one cache, which is freed at the end."""
        sizes = sorted((len(prompt) + limit + BLOCK for prompt in prompts), reverse=True)  # in whole blocks
        most_tokens = max(CACHE_BYTES // bytes_per_token(self.skeleton.config), sizes[0])
        cache_tokens = min(sum(sizes[:PLACES]), most_tokens)
        decoder = SharedDecoder(_to_fp32(_share_weights(self.skeleton)), torch.device("cpu"), cache_tokens)
        adapter = SequenceAdapter(self._updates(decoder))
        answers = [self._answer(decoder, adapter, prompt, limit) for prompt in prompts]
        write_together(answers)
        return [answer.ids[answer.prompt_tokens :] for answer in answers]

    @torch.no_grad()
    def _updates(self, decoder: SharedDecoder) -> dict[str, Any]:
        """Return what the adapter adds now; nothing while it is turned off."""
        modules = dict(cast(Any, self.adapted).get_base_model().named_modules())
        pairs: dict[str, LoraPair] = {}
        for layer in decoder.projections:
            module = modules[layer.name]
            if hasattr(module, "lora_A") and not module.disable_adapters:
                a, b = (factors["default"].weight.detach() for factors in (module.lora_A, module.lora_B))
                pairs[layer.name] = LoraPair(a, module.scaling["default"] * b)
        return join_pairs(pairs, decoder)

    def _answer(
        self, decoder: SharedDecoder, adapter: SequenceAdapter, prompt: list[int], limit: int
    ) -> GeneratingAnswer:
        greedy = TokenSampler(temperature=0.0, top_p=1.0, seed=None)
        text = TextStream(self.tokenizer.backend_tokenizer, ())
        return GeneratingAnswer(decoder, adapter, prompt, limit, self.end_ids, greedy, text, None, on_end=lambda: None)


def write_together(answers: list[GeneratingAnswer]) -> None:
    """Write answers of one model to their ends, in the calling thread."""
    waiting = deque(answers)
    live: list[GeneratingAnswer] = []
    while waiting or live:
        while waiting and len(live) < PLACES and _take_place(waiting[0]):
            live.append(waiting.popleft())
        step_answers(live, PROMPT_TOKENS)
        live = [answer for answer in live if not answer.ended]


def _take_place(answer: GeneratingAnswer) -> bool:
    """Take room in the cache for the whole answer; return whether there is enough."""
    if not answer.open_sequence(spare_blocks=0) or answer.sequence is None:
        return False
    if answer.decoder.cache.grow(answer.sequence, answer.prompt_tokens + answer.limit):
        return True
    answer.pause()
    return False


def sharing_skeleton(model: Any, config: RunConfig, plan: DevicePlan) -> Any:
    """Return the modules of a base model for DecoderWriter, before it gets its adapter; None where transformers has to write.

    Our decoder knows low-rank updates beside plain weights, and is made for CPUs.
    """
    adds_more = config.lora.use_dora or config.lora.bias != "none" or config.lora.modules_to_save
    keeps_weights = plan.dtype == torch.float32 or can_compile()
    if plan.device.type != "cpu" or plan.quantization is not None or adds_more or not keeps_weights:
        return None
    return _share_weights(model)


def _share_weights(model: Any) -> Any:
    """Return a copy of a model's modules over the same weights."""
    tensors: dict[int, Any] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, tensors)


def _to_fp32(model: Any) -> Any:
    """Let a model compute in fp32 but for its linear layers, which SharedDecoder replaces. Embeddings stay as they are stored."""
    from transformers.pytorch_utils import Conv1D  # deferred: takes seconds

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(_return_fp32)
        elif not isinstance(module, nn.Linear | Conv1D):
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.detach().float(), requires_grad=False))
    return model.eval()


def _return_fp32(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output.float()
