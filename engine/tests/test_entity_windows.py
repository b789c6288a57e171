"""Texts in windows of tokens, with their places in code points: exact for every kind of tokenizer and script."""

import re
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer

from engine.data.entities import select_learnable
from engine.data.entity_tags import find_entities, tag_names, tag_tokens
from engine.data.entity_windows import ARRAYS, cut_into_windows, tokenizer_with_places, window_starts
from engine.errors import BaseModelUnavailableError
from samples import base_model_path
from testing.entity_texts import make_entity_texts
from testing.small_models import (
    ALBERT_SPECIAL,
    ROBERTA_SPECIAL,
    add_special_tokens,
    character_tokenizer,
    train_bpe,
    train_unigram,
    train_wordpiece,
)

# Each entity stands in brackets, with its label behind a colon.
MARKED = [
    "[Ana Müller:0] met [José:0] in [São Paulo:1] 🎉",
    "  [Ame\u0301lie:0]  and\t[Andre\u0301:0]\nleft [Zu\u0308rich:1].",
    "[張三:0][李四:0]從[台北市:1]到[𠮷野家:2]吃飯。",
    "I like [👩\u200d👩\u200d👧:0] and [👍🏽:2] and [❤\ufe0f:2] and [🏳\ufe0f\u200d🌈:1]!",
    "[New\u3000York:1] and [Los  Angeles:1]\u00a0and [Reno:1]",
    "[नेपाल:1] में [दिल्ली:1], [서울:1] [\u1109\u1165\u110b\u116e\u11af:1]",
    "@[anna:0]'s #[Taipei:1]-based [U.S.:2] [O'Neill & Co.:2] [x:0]",
    "“[ABC:2]”（[大同:2]），[９９:2] ㍿",
    "",
    " \u3000\n",
    "nothing here",
]
EMOJI = "🎉 👩 👧 👍 🏽 ❤ 🏳 🌈 “ ” （ ） ， 。 ㍿ ９ # @ & ' . - !"
LABELS = ["person", "place", "thing"]


def read_marked(marked: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the texts without brackets, and their entities: (entities, 4)."""
    texts = []
    entities = []
    for row, line in enumerate(marked):
        text = ""
        for part in re.split(r"(\[[^\[\]]+:\d\])", line):
            if match := re.fullmatch(r"\[([^\[\]]+):(\d)\]", part):
                entities.append((row, len(text), len(text) + len(match[1]), int(match[2])))
                part = match[1]
            text += part
        texts.append(text)
    return texts, np.array(entities, dtype=np.int64)


def letters() -> list[str]:
    """Return training texts from which a tokenizer learns each character, and no piece that crosses a border of an entity."""
    texts, _entities = read_marked(MARKED)
    characters = sorted({character for text in texts for character in text if not character.isspace()})
    return [" ".join(characters), EMOJI, "met in and left to eat I like based nothing here"]


def sample_wordpiece() -> Tokenizer:
    return tokenizer_with_places(AutoTokenizer.from_pretrained(base_model_path()), "sample")


def roberta(add_prefix_space: bool = False) -> Tokenizer:
    """Byte pairs with RoBERTa's own post-processor, which takes the blank before a word out of its span."""
    tokenizer = train_bpe(letters())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    sep, cls = (ROBERTA_SPECIAL[role] for role in ("sep", "cls"))
    tokenizer.post_processor = processors.RobertaProcessing(
        (sep, tokenizer.token_to_id(sep)),
        (cls, tokenizer.token_to_id(cls)),
        trim_offsets=True,
        add_prefix_space=add_prefix_space,
    )
    return tokenizer


def prefixed_roberta() -> Tokenizer:
    """The same with a blank before the text, as LED and DeBERTa v1 have it."""
    return roberta(add_prefix_space=True)


def modernbert() -> Tokenizer:
    """Byte pairs after NFC, with runs of blanks as tokens of their own."""
    tokenizer = train_bpe(letters())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens(["  ", "   "])
    return tokenizer


def xlm_roberta() -> Tokenizer:
    """Unigram after NFKC, with a mark for the blank before each word, also the first."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(r"\s+", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=2000, special_tokens=list(ALBERT_SPECIAL.values()), unk_token="<unk>", max_piece_length=3
    )
    tokenizer.train_from_iterator(letters(), trainer)
    return add_special_tokens(tokenizer, ALBERT_SPECIAL)


def decoder_bpe() -> Tokenizer:
    """Byte pairs without any special tokens around a text, as GPT-2 has them."""
    tokenizer = train_bpe(letters())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


TOKENIZERS: dict[str, Any] = {
    "sample wordpiece": sample_wordpiece,
    "wordpiece": lambda: train_wordpiece(letters()),
    "characters": lambda: character_tokenizer(letters()),
    "bpe": lambda: train_bpe(letters()),
    "roberta": roberta,
    "prefixed roberta": prefixed_roberta,
    "modernbert": modernbert,
    "decoder": decoder_bpe,
    "albert": lambda: train_unigram(letters()),
    "xlm-roberta": xlm_roberta,
}


@pytest.fixture(params=TOKENIZERS, ids=lambda name: name.replace(" ", "-"))
def tokenizer(request) -> Tokenizer:
    return TOKENIZERS[request.param]()


def certain_logits(tags: np.ndarray, count: int = 2 * len(LABELS) + 1) -> np.ndarray:
    """Return the logits of a model that is sure of these tags."""
    return 20.0 * np.eye(count)[tags]


@pytest.mark.parametrize("max_length", [8, 512])
def test_entities_come_back_exactly_from_their_tags(tokenizer, max_length):
    texts, entities = read_marked(MARKED)
    windows = cut_into_windows(texts, tokenizer, max_length)
    tagged = tag_tokens(entities, windows)
    decoded = find_entities(certain_logits(tagged.tags), windows)
    shown = [(texts[row][start:end], LABELS[label]) for row, start, end, label in decoded.entities]
    assert shown == [(texts[row][start:end], LABELS[label]) for row, start, end, label in entities]
    assert decoded.entities.tolist() == entities.tolist() and tagged.inexact == 0


@pytest.mark.parametrize("max_length", [12, 30, 64])
def test_windows_of_long_texts_count_each_token_once_with_the_most_context(tokenizer, max_length):
    texts = [" ".join(marked.text for marked in make_entity_texts(12, seed)) for seed in range(3)] + ["short"]
    whole = cut_into_windows(texts, tokenizer, 100_000)
    windows = cut_into_windows(texts, tokenizer, max_length)
    assert windows.longest <= max_length and whole.rows.tolist() == [0, 1, 2, 3]
    assert np.array_equal(windows.ids[windows.counted], whole.ids[whole.counted])
    assert np.array_equal(windows.spans, whole.spans) and np.array_equal(windows.text_starts, whole.text_starts)
    assert (np.diff(windows.counted) > 0).all() and windows.is_counted.sum() == len(windows.counted)
    some = np.array([2, 0])
    parts = [windows.counted[windows.counted_starts[number] : windows.counted_starts[number + 1]] for number in some]
    assert np.array_equal(windows.counted[windows.counted_of(some)], np.concatenate(parts))
    assert all(
        (windows.offsets[n] <= part).all() and (part < windows.offsets[n + 1]).all()
        for n, part in zip(some, parts, strict=True)
    )

    # By brute force: the occurrences of each token of a text, each with its context to the left and right.
    before = int(tokenizer.encode("a").special_tokens_mask[:1] == [1])
    after = int(tokenizer.encode("a").special_tokens_mask[-1:] == [1])
    for row in range(len(texts)):
        length = int(whole.lengths[row]) - before - after
        size = max_length - before - after
        starts = window_starts(length, size)
        numbers = np.flatnonzero(windows.rows == row)
        counted = windows.counted[windows.text_starts[row] : windows.text_starts[row + 1]]
        places = whole.counted[whole.text_starts[row] : whole.text_starts[row + 1]] - whole.offsets[row] - before
        for index, place in zip(counted, places, strict=True):
            own = int(np.searchsorted(windows.offsets, index, side="right")) - 1 - int(numbers[0])
            assert _context(starts, own, place, size, length) == max(
                _context(starts, number, place, size, length) for number in range(len(starts))
            )


def _context(starts: list[int], number: int, place: int, size: int, length: int) -> float:
    """Return the tokens beside a place on the side where its window shows fewer of them; a text's own end shows all."""
    start = starts[number]
    if not start <= place < start + size:
        return -1
    left = place - start if number else length
    right = start + size - 1 - place if number < len(starts) - 1 else length
    return min(left, right)


def test_windows_are_of_one_length_and_overlap_by_a_quarter_at_least():
    for length in range(1, 200):
        for size in (1, 2, 3, 4, 7, 16):
            starts = window_starts(length, size)
            if length <= size:
                assert starts == [0]
                continue
            gaps = np.diff(starts)
            assert starts[0] == 0 and starts[-1] + size == length
            assert gaps.min() >= 1 and gaps.max() <= size - size // 4


def test_templates_come_back_exactly_from_the_sample_tokenizer():
    marked = make_entity_texts(400, seed=1)
    texts = [each.text for each in marked]
    labels = sorted({label for each in marked for _start, _end, label in each.spans})
    entities = np.array(
        [(row, start, end, labels.index(label)) for row, each in enumerate(marked) for start, end, label in each.spans]
    )
    selected = select_learnable(texts, entities)
    windows = cut_into_windows(texts, sample_wordpiece(), 16)
    tagged = tag_tokens(selected.entities, windows)
    decoded = find_entities(certain_logits(tagged.tags, len(tag_names(labels))), windows)
    # 台北 and the like are no words of the English vocabulary: neighbouring unknown characters stay apart.
    assert tagged.inexact == 0 and decoded.entities.tolist() == entities.tolist()


def test_special_tokens_and_white_space_never_count():
    windows = cut_into_windows(["a  b", "", " \n "], modernbert(), 16)
    assert windows.spans.tolist() == [[0, 1], [3, 4]] and windows.text_starts.tolist() == [0, 2, 2, 2]
    assert windows.rows.tolist() == [0, 1, 2] and (windows.lengths >= 2).all()


def test_ids_are_those_of_the_tokenizer_for_texts_of_one_window(tokenizer):
    texts, _entities = read_marked(MARKED)
    windows = cut_into_windows(texts, tokenizer, 512)
    ids = [part.tolist() for part in np.split(windows.ids, windows.offsets[1:-1])]
    assert ids == [encoding.ids for encoding in tokenizer.encode_batch(texts)]


@pytest.mark.medium
def test_special_token_in_a_text_is_read_as_the_tokenizer_of_transformers_reads_it():
    for split in (True, False):
        loaded = AutoTokenizer.from_pretrained(base_model_path(), split_special_tokens=split)
        loaded(["some"], truncation=True, max_length=4, padding="max_length")  # settings that stay in it
        text = "a [SEP] b [MASK] and more words than four"
        windows = cut_into_windows([text], tokenizer_with_places(loaded, "sample"), 64)
        assert windows.ids.tolist() == loaded(text)["input_ids"]


def test_tokenizer_that_tells_no_places_is_refused():
    with pytest.raises(BaseModelUnavailableError, match=r"byt5 does not tell where .* tokenizer.json") as refused:
        tokenizer_with_places(ByT5Tokenizer(), "byt5")
    assert refused.value.field == "model.name"


def test_windows_from_the_cache_are_those_that_were_cut(tmp_path):
    tokenizer = sample_wordpiece()
    texts = [marked.text for marked in make_entity_texts(40, 7)] + ["", " \u3000\n"]
    expected = cut_into_windows(texts, tokenizer, 9)
    for _ in range(2):
        windows = cut_into_windows(texts, tokenizer, 9, tmp_path)
        for name in ARRAYS:
            assert np.array_equal(getattr(windows, name), getattr(expected, name)), name


def test_texts_whose_windows_are_cached_are_not_tokenised_again(tmp_path):
    tokenizer = sample_wordpiece()
    other = cut_into_windows(["Taipei"], tokenizer, 9, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    cut_into_windows(["John Smith"], tokenizer, 9, tmp_path)
    (own,) = set(tmp_path.glob("*.safetensors")) - {file}
    own.write_bytes(file.read_bytes())
    assert np.array_equal(cut_into_windows(["John Smith"], tokenizer, 9, tmp_path).ids, other.ids)


@pytest.mark.medium
def test_cached_windows_of_other_texts_lengths_or_tokenizers_are_not_taken(tmp_path):
    texts = ["[SEP] John Smith lives in Taipei"]
    plain = sample_wordpiece()
    reading_special_tokens = sample_wordpiece()
    reading_special_tokens.encode_special_tokens = not plain.encode_special_tokens
    cases = [(texts, plain, 9), (texts, plain, 8), (["John"], plain, 9), (texts, reading_special_tokens, 9)]
    for case in cases * 2:
        assert np.array_equal(cut_into_windows(*case, tmp_path).ids, cut_into_windows(*case).ids)
    assert len(list(tmp_path.glob("*.safetensors"))) == len(cases)


def test_damaged_file_of_windows_is_written_again(tmp_path):
    tokenizer = sample_wordpiece()
    expected = cut_into_windows(["John Smith"], tokenizer, 9, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert np.array_equal(cut_into_windows(["John Smith"], tokenizer, 9, tmp_path).ids, expected.ids)
    assert file.read_bytes() == whole
