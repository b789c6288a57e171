"""How texts become token ids and batches: by the tokenizer's files, alike in training, evaluation and serving."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    EsmConfig,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    MPNetConfig,
    MptConfig,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from engine.data.token_counts import TokenCounter
from engine.data.tokens import Tokens, tokenise
from engine.errors import BaseModelUnavailableError
from engine.models.text_encoding import (
    load_tokenizer,
    longest_text,
    padding_side,
    prepare_encoding,
    set_padding_id,
)
from engine.serve.tokenizer import ServedTokenizer, tokenizer_key
from testing.small_models import BERT_SPECIAL, ROBERTA_SPECIAL, save_model, train_bpe, train_wordpiece
from testing.tiny_architectures import tiny_config

WORDS = ["a lovely day", "the worst of all services", "nobody came to help me", "it is what it is"]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """The folder of a BERT of one layer, whose tokenizer knows the words above."""
    save_model(tmp_path / "bert", BertConfig(**SIZES), train_wordpiece(WORDS), BERT_SPECIAL, "PreTrainedTokenizerFast")
    return tmp_path / "bert"


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    """The folder of a RoBERTa of one layer, with a byte-pair tokenizer."""
    save_model(
        tmp_path / "roberta", RobertaConfig(**SIZES), train_bpe(WORDS), ROBERTA_SPECIAL, "PreTrainedTokenizerFast"
    )
    return tmp_path / "roberta"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("split", [True, False])
def test_served_texts_become_the_ids_of_the_saved_tokenizer(roberta, tmp_path, side, split):
    change_json(roberta / "tokenizer_config.json", truncation_side=side)
    load_tokenizer(roberta, "base", split_special_tokens=split).save_pretrained(tmp_path / "final")
    texts = ["nobody came to help me at all", "a </s> b <mask>", "day"]
    saved = AutoTokenizer.from_pretrained(tmp_path / "final")
    served = ServedTokenizer(tmp_path / "final").encode(texts, max_length=8)
    assert [text.ids for text in served] == saved(texts, truncation=True, max_length=8)["input_ids"]


def test_tokenizers_that_differ_only_in_their_settings_are_not_shared(roberta):
    before = tokenizer_key(roberta)
    change_json(roberta / "tokenizer_config.json", truncation_side="left")
    assert tokenizer_key(roberta) != before


def test_special_token_in_a_text_is_read_as_text(roberta):
    encoding = prepare_encoding(roberta, "base", 64)
    tokens = tokenise(["good </s> bad <pad>", "good"], encoding.tokenizer, 64)
    for name in ("</s>", "<s>"):
        assert np.count_nonzero(tokens.ids == encoding.tokenizer.convert_tokens_to_ids(name)) == 2
    assert encoding.padding_id not in tokens.ids


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_ordinary_texts_have_the_ids_that_they_had_before(family, request):
    folder = request.getfixturevalue(family)
    texts = [*WORDS, "", "  ", "<not special> [nor this]", "Ünïcode ✓ 好"]
    plain = AutoTokenizer.from_pretrained(folder)(texts)["input_ids"]
    assert prepare_encoding(folder, "base", 64).tokenizer(texts)["input_ids"] == plain


def test_cached_tokens_of_another_reading_of_special_tokens_are_not_used(roberta, tmp_path):
    texts = ["good </s> bad"]
    ids = []
    for split in (False, True, False):
        tokenizer = load_tokenizer(roberta, "base", split_special_tokens=split)
        ids.append(tokenise(texts, tokenizer, 64, tmp_path / "cache").ids.tolist())
    assert ids[0] == ids[2] != ids[1]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_cached_tokens_are_found_again_whatever_the_tokenizer_did_before(bert, tmp_path):
    encoding = prepare_encoding(bert, "base", 64)
    for _ in range(2):
        tokenise(WORDS, encoding.tokenizer, 8, tmp_path / "cache")
        tokenise(WORDS[:2], encoding.tokenizer, 8, tmp_path / "cache")
        encoding.tokenizer(WORDS, truncation=True, max_length=4, padding=True)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_rows_are_padded_on_the_side_that_is_asked_for():
    tokens = Tokens(np.arange(1, 8, dtype=np.int32), np.array([0, 2, 7]), truncated=0)
    ids, mask = tokens.padded(np.array([0, 1]), 9, "left")
    assert ids.tolist() == [[9, 9, 9, 1, 2], [3, 4, 5, 6, 7]] and mask.tolist()[0] == [0, 0, 0, 1, 1]
    ids, mask = tokens.padded(np.array([0, 1]), 9)
    assert ids.tolist() == [[1, 2, 9, 9, 9], [3, 4, 5, 6, 7]] and mask.tolist()[0] == [1, 1, 0, 0, 0]


def test_only_a_model_that_reads_the_last_position_is_padded_on_the_left():
    assert padding_side(XLNetConfig()) == "left"
    assert {padding_side(config()) for config in (BertConfig, GPT2Config, LlamaConfig, BartConfig)} == {"right"}


def test_padding_id_is_the_tokenizers_else_the_end_of_text_else_the_model_is_refused(roberta):
    settings = roberta / "tokenizer_config.json"
    change_json(roberta / "config.json", pad_token_id=0)
    assert prepare_encoding(roberta, "base", 64).padding_id == 1
    change_json(settings, pad_token=None, eos_token="</s>")
    encoding = prepare_encoding(roberta, "base", 64)
    assert encoding.padding_id == 2 and encoding.tokenizer.pad_token == "</s>"
    change_json(settings, eos_token=None)
    with pytest.raises(BaseModelUnavailableError, match="neither a padding token nor") as refused:
        prepare_encoding(roberta, "base", 64)
    assert refused.value.field == "model.name"


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (BertConfig(max_position_embeddings=512), 512),
        (RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (MPNetConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (GPT2Config(n_positions=1024), 1024),
        (DebertaV2Config(position_biased_input=False), None),
        (XLNetConfig(), None),
        (T5Config(), None),
        (EsmConfig(max_position_embeddings=1026, pad_token_id=1), 1024),
        (MptConfig(max_seq_len=2048), 2048),
        (Gemma3Config(text_config={"max_position_embeddings": 96}), 96),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_longest_text_is_what_the_model_has_positions_for(config, longest):
    assert longest_text(config) == longest


def test_padding_id_is_set_for_the_whole_model_and_for_its_text_part():
    model = AutoModelForTokenClassification.from_config(tiny_config("t5gemma"))
    set_padding_id(model, 7)
    assert (model.config.pad_token_id, model.config.get_text_config().pad_token_id) == (7, 7)


def test_longest_text_is_lowered_to_the_models_with_a_notice(roberta):
    change_json(roberta / "tokenizer_config.json", model_max_length=None)
    encoding = prepare_encoding(roberta, "base", 1024)
    assert encoding.max_length == 62  # of 64 positions, two are taken by padding
    assert [notice.code for notice in encoding.notices] == ["max_length_lowered"]
    assert "62 tokens instead of data.max_length 1,024" in encoding.notices[0].message
    assert prepare_encoding(roberta, "base", 62).notices == []


def test_tokenizer_with_more_tokens_than_the_model_has_embeddings_is_refused(bert):
    change_json(bert / "config.json", vocab_size=20)
    with pytest.raises(BaseModelUnavailableError, match="the model has 20 embeddings") as refused:
        prepare_encoding(bert, "base", 64)
    assert refused.value.field == "model.name"


def test_special_token_that_no_text_gets_may_lie_outside_of_the_embeddings(bert):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<never-used>"]})
    tokenizer.save_pretrained(bert)
    assert prepare_encoding(bert, "base", 64).max_length == 64
    tokenizer.add_tokens(["lovely-day"])
    tokenizer.save_pretrained(bert)
    with pytest.raises(BaseModelUnavailableError, match="does not fit its model"):
        prepare_encoding(bert, "base", 64)


@pytest.mark.parametrize("has_settings", [True, False])
def test_folder_without_a_tokenizer_is_refused_by_the_names_of_its_files(bert, has_settings):
    (bert / "tokenizer.json").unlink()
    change_json(bert / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    if not has_settings:
        (bert / "tokenizer_config.json").unlink()
    with pytest.raises(
        BaseModelUnavailableError, match=r"has no tokenizer: its folder lacks tokenizer.json"
    ) as refused:
        prepare_encoding(bert, "base", 64)
    assert refused.value.field == "model.name"


@pytest.mark.parametrize("kind", ["AlbertTokenizer", "XLMRobertaTokenizer", "T5Tokenizer"])
def test_sentencepiece_file_alone_names_the_package_that_reads_it(bert, monkeypatch, kind):
    monkeypatch.setattr("engine.models.text_encoding.find_spec", lambda name: None)
    (bert / "tokenizer.json").unlink()
    change_json(bert / "tokenizer_config.json", tokenizer_class=kind)
    for name in ("spiece.model", "sentencepiece.bpe.model"):
        (bert / name).write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(BaseModelUnavailableError, match="needs the package sentencepiece") as refused:
        load_tokenizer(bert, "base")
    assert "tiktoken" not in str(refused.value) and str(bert) not in str(refused.value)


def test_tokenizer_class_that_needs_a_package_names_it(bert, monkeypatch):
    def from_pretrained(*arguments: Any, **options: Any) -> None:
        raise ImportError("You need to install rjieba to use RoFormerTokenizer. See https://example.org")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(BaseModelUnavailableError, match="needs the package rjieba, which is not installed"):
        load_tokenizer(bert, "base")


def test_damaged_tokenizer_is_refused_without_a_path_of_the_machine(bert):
    (bert / "tokenizer.json").write_text("{")
    with pytest.raises(BaseModelUnavailableError, match="The tokenizer of base can't be loaded") as refused:
        load_tokenizer(bert, "base")
    assert str(bert.parent) not in str(refused.value)


def test_share_of_unknown_tokens_counts_no_special_tokens_and_is_warned_of(bert):
    encoding = prepare_encoding(bert, "base", 64)
    share = encoding.facts(tokenise(["a day", "好 ✓"], encoding.tokenizer, 64))["unknown_token_share"]
    assert share == 0.5
    (notice,) = encoding.notice_of_unknown_tokens(share)
    assert (notice.level, notice.code) == ("warning", "unknown_tokens") and "50%" in notice.message
    assert encoding.notice_of_unknown_tokens(0.2) == []


@pytest.mark.parametrize("has_tokenizer_json", [True, False])
def test_counted_tokens_are_those_of_training(bert, has_tokenizer_json):
    if not has_tokenizer_json:
        vocabulary = json.loads((bert / "tokenizer.json").read_text())["model"]["vocab"]
        (bert / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
        (bert / "tokenizer.json").unlink()
        change_json(bert / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    texts = [*WORDS, "a [SEP] day", ""]
    lengths = tokenise(texts, prepare_encoding(bert, "base", 64).tokenizer, 64).lengths
    assert TokenCounter(bert, "base")(pl.Series(texts)).tolist() == lengths.tolist()
