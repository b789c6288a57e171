"""Answers take room in the cache as they grow: more are written at once, and where it is full, the last one waits and goes on."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.serve import generated_answer
from engine.serve.generated_answer import AnswerStream, GeneratingAnswer, Piece, Usage
from engine.serve.generator import GenerationRequest, Generator
from engine.serve.key_value_cache import BLOCK, KeyValueCache
from testing.language_models import build_language_model, conversation

TOKEN_MB = 256 / 2**20  # keys and values of a token of the small model
QUESTIONS = [conversation(f"How many {fruit} do you want?") for fruit in ("apples", "pears", "plums", "figs")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_language_model(tmp_path_factory.mktemp("base") / "llama", max_position_embeddings=8192)


def request(base: Path, number: int, max_tokens: int) -> GenerationRequest:
    return GenerationRequest(base, QUESTIONS[number], max_tokens, temperature=1.0, seed=number)


def write(generator: Generator, base: Path, number: int, max_tokens: int = 90) -> list[Piece]:
    return list(generator.generate(request(base, number, max_tokens)))


def usage_of(pieces: list[Piece]) -> Usage:
    assert pieces[-1].usage
    return pieces[-1].usage


@pytest.mark.slow
def test_answers_that_wait_for_room_in_the_cache_are_those_that_are_written_alone(base):
    roomy = Generator(patience=60)
    alone = [write(roomy, base, number) for number in range(4)]
    longest = max(usage.prompt_tokens + usage.completion_tokens for usage in map(usage_of, alone))
    small = Generator(patience=60, cache_mb=(longest + 2 * BLOCK) * TOKEN_MB)
    paused: set[int] = set()
    batching = small.batching
    batching.before_step = lambda: paused.update(
        answer.prompt_tokens for answer in batching._waiting if answer.is_paused
    )
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda number: write(small, base, number), range(4)))
    assert paused
    texts = [["".join(piece.text for piece in pieces) for pieces in answers] for answers in (alone, together)]
    assert texts[0] == texts[1]
    # What is read already when an answer begins depends on which of the four came first.
    usages = [[replace(usage_of(pieces), cached_tokens=0) for pieces in answers] for answers in (alone, together)]
    assert usages[0] == usages[1]
    assert eventually(lambda: batching.state() == {"answers": 0, "waiting_answers": 0})
    cache = small._acquire(base).value.decoder.cache
    assert len(cache._free) + len(cache._unused) == cache.blocks


def test_two_long_answers_are_written_side_by_side_in_a_cache_that_holds_one(base):
    generator = Generator(patience=5, cache_mb=4200 * TOKEN_MB)
    streams = [generator.generate(request(base, number, 4000)) for number in range(2)]
    for _ in range(3):
        assert [next(stream).finish_reason for stream in streams] == [None, None]
    for stream in streams:
        stream.close()
    assert eventually(lambda: generator.state() == {"answers": 0, "waiting_answers": 0})


def eventually(is_true: Any) -> bool:
    deadline = time.monotonic() + 10
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(is_true())


def test_caller_of_a_paused_answer_goes_on_waiting(monkeypatch):
    monkeypatch.setattr(generated_answer, "STEP_TIMEOUT", 0.01)
    nothing: Any = None
    answer = GeneratingAnswer(nothing, nothing, [1], 5, frozenset(), nothing, nothing, None, on_end=lambda: None)
    answer.started.set()
    stream = AnswerStream(answer)
    assert answer.is_paused and next(stream) == Piece("", 0)
    answer.pieces.put(Piece("a", 1))
    assert next(stream).text == "a"


def test_sequence_grows_by_blocks_while_there_are_some_and_spare_ones_are_left():
    cache = KeyValueCache(4 * BLOCK)
    first = cache.open(b"a", [1, 2], BLOCK)
    assert first is not None and cache.grow(first, BLOCK) and len(first.blocks) == 1
    assert (
        cache.grow(first, 2 * BLOCK + 1) and len(first.slots) == 3 * BLOCK and len({*first.slots.tolist()}) == 3 * BLOCK
    )
    assert cache.open(b"a", [3], BLOCK, spare_blocks=1) is None
    second = cache.open(b"a", [3], BLOCK)
    assert second is not None and not cache.grow(first, 4 * BLOCK) and len(first.blocks) == 3
    cache.close(second)
    assert cache.grow(first, 4 * BLOCK)
    cache.close(first)
    assert len(cache._free) == 4
