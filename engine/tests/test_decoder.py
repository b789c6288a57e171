"""Answers of several adapters in common steps are those of plain PEFT, for each family of language models."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.models.loading import attach_adapter
from engine.serve.adapter import SequenceAdapter
from engine.serve.adapter_loading import can_share_base, load_updates
from engine.serve.batch import DecoderRow
from engine.serve.decoder import SharedDecoder
from engine.serve.generator import GenerationRequest, Generator
from engine.serve.key_value_cache import BLOCK, KeyValueCache
from testing.language_models import FAMILIES, build_language_model, conversation, make_language_adapter

CPU = torch.device("cpu")
CACHE_TOKENS = 1024
STEPS = 6
# Both are longer than the window of those families that have one.
PROMPTS = [list(range(40, 70)), list(range(100, 102)), list(range(200, 233))]


def plain_model(base: Path, adapter: Path | None) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    return (model if adapter is None else attach_adapter(model, adapter)).eval()


def greedy_with_plain_peft(model: Any, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """Return the likeliest tokens and the logits of each, computed anew from all tokens before."""
    ids = list(prompt)
    logits = []
    with torch.no_grad():
        for _step in range(STEPS):
            logits.append(model(torch.tensor([ids])).logits[0, -1])
            ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :], torch.stack(logits)


def greedy_together(
    decoder: SharedDecoder, adapters: list[SequenceAdapter], prompts: list[list[int]], chunk: int
) -> list[tuple[list[int], torch.Tensor]]:
    """Return the same from common steps, in which prompts are read in parts and a sequence joins after the others."""
    ids = [list(prompt) for prompt in prompts]
    logits: list[list[torch.Tensor]] = [[] for _prompt in prompts]
    sequences = [
        decoder.cache.open(adapter.owner, prompt, len(prompt) + STEPS)
        for adapter, prompt in zip(adapters, prompts, strict=True)
    ]
    number = 0
    while min(map(len, logits)) < STEPS:
        rows, writing = [], []
        for index, sequence in enumerate(sequences):
            assert sequence is not None
            if len(logits[index]) == STEPS or (index == 0 and number < 3 and len(prompts) > 1):
                continue
            new = ids[index][sequence.length : sequence.length + chunk]
            is_last = sequence.length + len(new) == len(ids[index])
            rows.append(DecoderRow(sequence, adapters[index], new, ids[index], is_last))
            writing += [index] if is_last else []
        for index, row in zip(writing, decoder.step(rows), strict=True):
            logits[index].append(row)
            ids[index].append(int(row.argmax()))
        number += 1
    return [
        (tokens[len(prompt) :], torch.stack(rows)) for tokens, prompt, rows in zip(ids, prompts, logits, strict=True)
    ]


@pytest.mark.medium
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_common_steps_give_the_logits_and_tokens_of_plain_peft(family, tmp_path):
    base = build_language_model(tmp_path / family, family)
    attention = {"gpt2": ["c_attn"], "phi3": ["qkv_proj"]}.get(family, ["q_proj", "v_proj"])
    folders = [
        None,
        make_language_adapter(tmp_path / "all", base, 1),
        make_language_adapter(tmp_path / "few", base, 2, r=3, use_rslora=True, target_modules=attention),
    ]
    decoder = SharedDecoder.load(base, "mine", CPU, CACHE_TOKENS)
    adapters = [SequenceAdapter({} if folder is None else load_updates(folder, decoder)) for folder in folders]
    assert all(can_share_base(folder, ()) for folder in folders if folder)
    together = greedy_together(decoder, adapters, PROMPTS, chunk=20)
    for folder, prompt, (tokens, logits) in zip(folders, PROMPTS, together, strict=True):
        expected_tokens, expected_logits = greedy_with_plain_peft(plain_model(base, folder), prompt)
        assert (logits - expected_logits).abs().max() <= 1e-3
        assert tokens == expected_tokens


def test_adapters_change_what_a_model_writes(tmp_path):
    base = build_language_model(tmp_path / "llama")
    decoder = SharedDecoder.load(base, "mine", CPU, CACHE_TOKENS)
    tuned = SequenceAdapter(load_updates(make_language_adapter(tmp_path / "all", base, 1), decoder))
    prompt = PROMPTS[0]
    (_, plain), (_, changed) = greedy_together(decoder, [SequenceAdapter({}), tuned], [prompt, prompt], chunk=20)
    assert (plain[0] - changed[0]).abs().max() > 0.1


@pytest.mark.medium
def test_bf16_weights_give_the_numbers_of_fp32_in_few_and_in_many_rows(tmp_path):
    from transformers import AutoModelForCausalLM

    base = build_language_model(tmp_path / "qwen2", "qwen2")
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(base)
    decoder = SharedDecoder.load(base, "mine", CPU, CACHE_TOKENS)
    assert any(layer.weight.dtype == torch.bfloat16 for layer in decoder.projections) == (decoder.kernels is not None)
    adapter = SequenceAdapter(load_updates(make_language_adapter(tmp_path / "all", base, 1), decoder))
    model = attach_adapter(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "all").eval()
    for chunk in (7, 33):
        ((tokens, logits),) = greedy_together(decoder, [adapter], [PROMPTS[2]], chunk)
        expected_tokens, expected_logits = greedy_with_plain_peft(model, PROMPTS[2])
        assert (logits - expected_logits).abs().max() <= 1e-3
        assert tokens == expected_tokens


@pytest.mark.medium
@pytest.mark.parametrize("lora", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_adapter_that_can_not_share_is_merged_and_answers_the_same(lora, tmp_path):
    base = build_language_model(tmp_path / "qwen2", "qwen2")
    folder = make_language_adapter(tmp_path / "own", base, 3, **lora)
    assert not can_share_base(folder, ())
    generator = Generator(tmp_path)
    request = GenerationRequest(folder, conversation("How many?"), max_tokens=STEPS, temperature=0.0)
    pieces = list(generator.generate(request))
    model = generator.cache.acquire_if_loaded(next(iter(generator.cache._entries)))
    assert model is not None
    prompt = model.value.encode(request.prompt)
    expected, _logits = greedy_with_plain_peft(plain_model(base, folder), prompt)
    usage = pieces[-1].usage
    assert usage is not None
    written = expected[: usage.completion_tokens]
    text = model.value.template.tokenizer.decode(written, skip_special_tokens=True)
    assert "".join(piece.text for piece in pieces) == text.rstrip("\ufffd")


def test_beginning_of_a_prompt_is_read_once_for_each_owner():
    cache = KeyValueCache(8 * BLOCK)
    ids = list(range(3 * BLOCK + 1))
    first = cache.open(b"a", ids, 4 * BLOCK)
    assert first is not None and first.reused == 0
    cache.advance(first, ids, len(ids))
    beside = cache.open(b"a", [*ids[: 2 * BLOCK], 7, 7], 4 * BLOCK)
    assert beside is not None and beside.reused == 2 * BLOCK
    assert beside.slots[: 2 * BLOCK].tolist() == first.slots[: 2 * BLOCK].tolist()
    assert not set(beside.blocks[2:]) & set(first.blocks)
    cache.close(first)
    cache.close(beside)
    other_owner = cache.open(b"b", ids, 4 * BLOCK)
    assert other_owner is not None and other_owner.reused == 0
    again = cache.open(b"a", ids, 4 * BLOCK)
    assert again is not None and again.reused == 3 * BLOCK
    assert cache.open(b"c", ids, 4 * BLOCK) is None  # everything is in use


def test_last_token_of_a_prompt_is_always_read_because_its_output_is_wanted():
    cache = KeyValueCache(8 * BLOCK)
    ids = list(range(2 * BLOCK))
    first = cache.open(b"a", ids, 3 * BLOCK)
    assert first is not None
    cache.advance(first, ids, len(ids))
    again = cache.open(b"a", ids, 3 * BLOCK)
    assert again is not None and again.reused == BLOCK


def test_blocks_that_were_used_longest_ago_are_given_to_others_first():
    cache = KeyValueCache(4 * BLOCK)
    prompts = [[number] * (BLOCK + 1) for number in range(3)]
    for prompt in prompts:
        sequence = cache.open(b"a", prompt, 2 * BLOCK)
        assert sequence is not None
        cache.advance(sequence, prompt, len(prompt))
        cache.close(sequence)
    filling = cache.open(b"a", [9], 2 * BLOCK)
    assert filling is not None
    cache.close(filling)
    for prompt, reused in ((prompts[2], BLOCK), (prompts[1], BLOCK), (prompts[0], 0)):
        sequence = cache.open(b"a", prompt, 2 * BLOCK)
        assert sequence is not None and sequence.reused == reused
        cache.close(sequence)
