"""Names in any script: what is refused and why, what is offered instead, and which names count as the same."""

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import ConfigError, RunConfig
from engine.names import (
    LARGEST_NAME,
    LONGEST_KEY,
    LONGEST_NAME,
    explain_refusal,
    find_problem,
    folder_name,
    is_allowed,
    name_key,
    nearest_name,
    normalise_name,
)

NAMES_OF_PEOPLE = [
    "客服工單-2026",
    "客戶意見_第二版",
    "отзывы_v1.2",
    "résumé",
    "سجل-العملاء",
    "שירות",
    "ग्राहक-सेवा",
    "ลูกค้าสัมพันธ์",
    "고객문의",
    "お客様の声",
    "Ürün-İncelemeleri",
    "二〇二六年",
    "𠮷野家",
]
HOSTILE = {
    "gnp\u202evsc": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "tweets\u200b": "U+200B ZERO WIDTH SPACE",
    "می\u200cخواهم": "U+200C ZERO WIDTH NON-JOINER",
    "\ufefftweets": "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    "tweets\u00ad": "U+00AD SOFT HYPHEN",
    "a\ufe0f": "U+FE0F VARIATION SELECTOR-16",
    "a\u3164b": "U+3164 HANGUL FILLER",
    "a\u1160b": "U+1160 HANGUL JUNGSEONG FILLER",
    "a\u034fb": "U+034F COMBINING GRAPHEME JOINER",
    "a\x00b": "U+0000",
    "a\nb": "U+000A",
    "a\ud800b": "U+D800",
    "a\ue000b": "U+E000",
    "a\u00a0b": "U+00A0 NO-BREAK SPACE",
    "party🎉": "“🎉”",
    "a/b": "“/”",
    "a／b": "“／”",
    "a\\b": "“\\”",
    "a@2": "“@”",
    "a＠2": "“＠”",
    "a%2fb": "“%”",
    "~root": "“~”",
    "../up": "“/”",
    "ﷺ": "“ﷺ”",
    "⑴": "“⑴”",
}


@pytest.mark.parametrize("name", NAMES_OF_PEOPLE)
def test_name_in_any_script_is_allowed(name: str) -> None:
    assert explain_refusal(name) == ""
    assert nearest_name(name) == normalise_name(name)
    assert RunConfig.parse({"experiment_name": name}).experiment_name == normalise_name(name)


@pytest.mark.parametrize(("name", "character"), HOSTILE.items())
def test_refusal_names_the_character(name: str, character: str) -> None:
    assert f"A name cannot contain {character}." in explain_refusal(name)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("客服 工單", "客服-工單"),
        ("a／b", "a-b"),
        ("../up", "up"),
        ("gnp\u202evsc", "gnpvsc"),
        ("می\u200cخواهم", "میخواهم"),
        ("party🎉", "party"),
        ("客服工單（2026）.v2", "客服工單-2026-.v2"),
        ("x" * 200, "x" * 80),
        ("𠮷" * 80, "𠮷" * 60),
        ("e" + "\u0323\u0331\u0332\u0333\u0347\u0348", "ẹ\u0331\u0332\u0333\u0347"),
        ("🎉", ""),
        ("\ud800", ""),
        ("..", ""),
    ],
)
def test_nearest_name_is_offered(text: str, nearest: str) -> None:
    assert nearest_name(text) == nearest
    assert (f"“{nearest}” can be used." in explain_refusal(text)) is bool(nearest)


def test_name_is_limited_in_characters_and_in_bytes() -> None:
    assert find_problem("客" * 80) is None and find_problem("𠮷" * 60) is None
    for name in ("客" * 81, "𠮷" * 61):
        assert explain_refusal(name).startswith("A name has at most 80 characters and 240 bytes in UTF-8.")
    decomposed = unicodedata.normalize("NFD", "고객문의" * 20)
    assert len(decomposed) > LONGEST_NAME and find_problem(decomposed) is None


def test_composed_and_decomposed_name_are_one_name() -> None:
    for name in ("résumé", "고객문의", "Ürün"):
        decomposed = unicodedata.normalize("NFD", name)
        assert decomposed != name == normalise_name(decomposed)
        assert folder_name(decomposed) == folder_name(name) and name_key(decomposed) == name_key(name)
        assert RunConfig.parse({"experiment_name": decomposed}).experiment_name == name


def test_names_that_differ_in_case_or_width_have_one_key() -> None:
    for one, other in [("Tweets", "ｔｗｅｅｔｓ"), ("Straße", "STRASSE"), ("Отзывы", "отзывы"), ("第①批", "第1批")]:
        assert name_key(one) == name_key(other)
    for one, other in [("istanbul", "ıstanbul"), ("İstanbul", "istanbul"), ("資料", "资料"), ("résumé", "resume")]:
        assert name_key(one) != name_key(other)


def test_folder_of_an_ascii_name_is_the_name_and_any_other_is_ascii() -> None:
    assert folder_name("Tweets-en_2.1") == "Tweets-en_2.1"
    assert re.fullmatch(r"2026-v2~[0-9a-f]{16}", folder_name("客服-2026.V2"))
    assert re.fullmatch(r"run~[0-9a-f]{16}", folder_name("客服"))
    assert folder_name("客服") != folder_name("客户")


def test_configuration_refuses_a_name_with_its_field_and_code() -> None:
    with pytest.raises(ConfigError) as refused:
        RunConfig.from_yaml('experiment_name: "a\\u202eb"')
    (problem,) = refused.value.problems
    assert (problem.field, problem.code) == ("experiment_name", "string_pattern_mismatch")
    assert "RIGHT-TO-LEFT OVERRIDE" in problem.message and "“ab” can be used." in problem.message


@pytest.mark.slow
def test_key_of_no_name_is_longer_than_its_column() -> None:
    allowed = [character for character in map(chr, range(sys.maxunicode + 1)) if is_allowed(character)]
    assert len(allowed) > 100_000
    assert max(len(name_key(character)) for character in allowed) <= LONGEST_KEY / LONGEST_NAME


words = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]), max_size=120)


@given(words)
def test_nearest_name_of_any_text_is_an_allowed_name_or_empty(text: str) -> None:
    nearest = nearest_name(text)
    assert not nearest or find_problem(nearest) is None
    assert nearest_name(nearest) == nearest


@given(words.map(nearest_name).filter(bool))
def test_allowed_name_is_fit_for_addresses_folders_and_columns(name: str) -> None:
    assert unicodedata.normalize("NFC", name) == name and name.isprintable()
    assert len(name) <= LONGEST_NAME and len(name.encode()) <= LARGEST_NAME
    assert not set(name) & set("/\\@%?#:;<>|*\"'`~ ") and ".." not in name
    folder = folder_name(name)
    assert folder.isascii() and len(folder) <= LONGEST_NAME and not folder.startswith(".")
    key = name_key(name)
    assert name_key(key) == key and len(key) <= LONGEST_KEY
