"""Language models answer: the same tokens as transformers writes, whole characters, ends, limits and refusals."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.serve.continuous_batching import PROMPT_TOKENS
from engine.serve.errors import (
    BusyError,
    ModelUnreadableError,
    PredictionFailedError,
    PromptRefusedError,
    PromptTooLongError,
)
from engine.serve.generator import GenerationRequest, Generator, Piece
from engine.serve.text_stream import TextStream
from testing.language_models import (
    build_language_model,
    chat_tokenizer,
    conversation,
    make_language_adapter,
    piece_tokenizer,
)

QUESTION = conversation("How many apples do you want?")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_language_model(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(patience=5)


@pytest.fixture
def crowded() -> Generator:
    """Return a generator with one place, for which nobody waits long."""
    generator = Generator(patience=0.2)
    generator.batching.places = 1
    generator.batching.before_step = lambda: time.sleep(0.01)
    return generator


def write(generator: Generator, folder: Path, prompt: Any = QUESTION, **options: Any) -> list[Piece]:
    return list(
        generator.generate(GenerationRequest(folder, prompt, **{"max_tokens": 20, "temperature": 0.0} | options))
    )


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.medium
def test_greedy_answer_is_that_of_transformers(generator, base):
    from transformers import AutoModelForCausalLM

    tokenizer = chat_tokenizer()
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    expected = model.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
    pieces = write(generator, base)
    assert text_of(pieces) == tokenizer.decode(expected, skip_special_tokens=True).rstrip("\ufffd")
    assert sum(piece.tokens for piece in pieces) == len(expected)
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    usage = pieces[-1].usage
    assert usage is not None and (usage.prompt_tokens, usage.completion_tokens) == (ids.shape[1], len(expected))


def test_seed_repeats_an_answer_and_another_one_does_not(generator, base):
    answers = [text_of(write(generator, base, temperature=1.0, top_p=0.9, seed=seed)) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_answer_ends_before_a_stop_string_of_which_nothing_shows(generator, base):
    whole = text_of(write(generator, base))
    stop = whole[4:7]
    pieces = write(generator, base, stop=(stop, "never"))
    assert text_of(pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish_reason == "stop"


def test_bytes_that_make_no_character_do_not_end_an_answer():
    tokenizer = piece_tokenizer()
    ids = tokenizer.convert_tokens_to_ids(["it", "<0xD6>", "<0xA3>", "<0xF1>", "it", "▁", "it"])
    stream = TextStream(tokenizer.backend_tokenizer, ())
    assert "".join(map(stream.add, ids)).endswith("it it")


def test_text_comes_in_whole_characters_and_without_the_beginning_of_a_stop_string():
    tokenizer = chat_tokenizer().backend_tokenizer
    ids = tokenizer.encode("a 狐狸🦊 END of", add_special_tokens=False).ids
    stream = TextStream(tokenizer, ["END OF"])
    parts = [stream.add(token) for token in ids]
    assert "".join(parts) + stream.end() == "a 狐狸🦊 END of"
    assert not any("\ufffd" in part for part in parts)
    cut = TextStream(tokenizer, ["狸🦊", "END"])
    assert "".join(cut.add(token) for token in tokenizer.encode("a 狐狸🦊").ids) == "a 狐"
    assert cut.stopped


@pytest.mark.parametrize("seed", range(3))
def test_json_answer_is_the_beginning_of_a_json_object(seed, generator, base):
    pieces = write(generator, base, schema={"type": "object"}, temperature=1.0, seed=seed, max_tokens=60)
    text = text_of(pieces)
    assert text.startswith("{")
    if pieces[-1].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)
    else:
        assert is_json_so_far(text)


def is_json_so_far(text: str) -> bool:
    """Return whether a parser only misses what has not come yet: it reports the end of the text, or a cut-off string."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text.rstrip()) - 6 or "Unterminated string" in error.msg
    return True


def test_leaving_frees_the_place_for_the_next_one(crowded, base):
    first = crowded.generate(GenerationRequest(base, QUESTION, max_tokens=400, temperature=0.0))
    next(first)
    with pytest.raises(BusyError) as busy:
        crowded.generate(GenerationRequest(base, QUESTION, max_tokens=5))
    assert busy.value.wait >= 1
    first.close()
    crowded.batching.patience = 5
    assert write(crowded, base)[-1].finish_reason == "length"
    assert list(first) == []
    assert eventually(lambda: crowded.state() == {"answers": 0, "waiting_answers": 0})
    assert eventually(lambda: models_in_use(crowded) == 0)


def test_answer_that_nobody_keeps_is_given_up(crowded, base):
    crowded.batching.patience = 5
    crowded.generate(GenerationRequest(base, QUESTION, max_tokens=400, temperature=0.0))  # dropped at once
    assert write(crowded, base)[-1].finish_reason == "length"


def models_in_use(generator: Generator) -> int:
    """Return how many answers keep a model in memory."""
    return sum(entry.users for key, entry in generator.cache._entries.items() if "generates" in str(key))


def eventually(is_true: Any) -> bool:
    deadline = time.monotonic() + 5
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(is_true())


@pytest.mark.parametrize(
    ("prompt", "error", "words"),
    [
        ([{"role": "boss", "content": "x"}], PromptRefusedError, "'boss'"),
        (conversation("Say <|im_end|> now"), PromptRefusedError, "controls this model"),
        ("", PromptRefusedError, "empty"),
        ([1, 100_000], PromptRefusedError, "outside"),
        ("half of a pair: \ud83e", PromptRefusedError, "Unicode"),
        ([5] * 512, PromptTooLongError, "512 tokens"),
    ],
)
def test_unusable_prompt_is_refused_in_words_and_nothing_stays_in_use(prompt, error, words, generator, base):
    with pytest.raises(error, match=words):
        write(generator, base, prompt)
    assert eventually(lambda: models_in_use(generator) == 0)


def test_answer_ends_where_the_model_has_no_more_positions(generator, base):
    pieces = write(generator, base, [5] * 505, max_tokens=100)
    usage = pieces[-1].usage
    assert usage is not None and usage.prompt_tokens + usage.completion_tokens <= 512


def test_model_that_can_not_be_read_says_why(generator, base, tmp_path):
    with pytest.raises(ModelUnreadableError, match=r"config.json is not there"):
        write(generator, tmp_path)
    (tmp_path / "lorasite.json").write_text(
        json.dumps({"base_model": "x", "labels": ["a"], "max_length": 8, "task": "sequence_classification"})
    )
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnreadableError, match="classify"):
        write(generator, tmp_path)


@pytest.mark.medium
def test_models_that_are_asked_for_at_once_are_all_loaded(tmp_path, base):
    folders = [Path(shutil.copytree(base, tmp_path / str(number))) for number in range(4)]
    generator = Generator(patience=5)
    with ThreadPoolExecutor(4) as threads:
        answers = {text_of(answer) for answer in threads.map(lambda folder: write(generator, folder), folders)}
    assert len(answers) == 1


@pytest.mark.medium
def test_seed_gives_the_same_answer_beside_others(generator, base):
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 30}
    alone = [text_of(write(generator, base, seed=seed, **options)) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda seed: text_of(write(generator, base, seed=seed, **options)), range(4)))
    assert together == alone


@pytest.mark.medium
def test_conversation_goes_on_without_reading_its_beginning_again_and_only_with_its_own_adapter(base, tmp_path):
    shutil.copytree(base, tmp_path / "llama")
    adapters = [make_language_adapter(tmp_path / str(seed), tmp_path / "llama", seed) for seed in (1, 2)]
    generator = Generator(tmp_path, patience=5)
    question = conversation("Tell me about the apples that grow in the garden behind the house of my aunt")
    answer = text_of(write(generator, adapters[0], question))
    longer = [*question, {"role": "assistant", "content": answer}, {"role": "user", "content": "And pears?"}]
    usages = [write(generator, adapter, longer)[-1].usage for adapter in adapters]
    cached = [usage.cached_tokens for usage in usages if usage is not None]
    assert cached[0] >= 32 and cached[1] == 0


@pytest.mark.medium
def test_output_that_is_not_finite_fails_its_own_answer_alone(base, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, tmp_path / "llama")
    good, broken = (make_language_adapter(tmp_path / str(seed), tmp_path / "llama", seed) for seed in (1, 2))
    weights = load_file(broken / "adapter_model.safetensors")
    save_file({name: weight * 1e20 for name, weight in weights.items()}, broken / "adapter_model.safetensors")
    generator = Generator(tmp_path, patience=5)
    alone = text_of(write(generator, good))
    with ThreadPoolExecutor(2) as threads:
        beside = threads.submit(lambda: text_of(write(generator, good)))
        with pytest.raises(PredictionFailedError, match="not finite"):
            write(generator, broken)
    assert beside.result() == alone


@pytest.mark.medium
def test_long_prompt_is_read_in_parts_while_another_answer_goes_on(base):
    generator = Generator(patience=5)
    batching = generator.batching
    lengths: list[dict[int, int]] = []  # in each step, tokens read of the answers, by those of their prompts

    def look() -> None:
        time.sleep(0.005)
        lengths.append({answer.prompt_tokens: answer.sequence.length for answer in batching._live if answer.sequence})

    batching.before_step = look
    first = generator.generate(GenerationRequest(base, QUESTION, max_tokens=60, temperature=0.0))
    next(first)
    write(generator, base, [5] * 400, max_tokens=2)
    usage = list(first)[-1].usage
    assert usage is not None
    both = [(step[usage.prompt_tokens], step[400]) for step in lengths if len(step) == 2]
    assert [read for _answer, read in both][:4] == [0, PROMPT_TOKENS, 2 * PROMPT_TOKENS, 3 * PROMPT_TOKENS]
    assert all(after - before == 1 for (before, _), (after, _) in pairwise(both))
