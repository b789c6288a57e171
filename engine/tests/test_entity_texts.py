"""The texts from templates that token classification is tested on."""

import json
import unicodedata

from testing.entity_texts import LABELS, TEMPLATES, make_entity_frame, make_entity_texts


def test_texts_are_the_same_for_the_same_seed_and_others_for_another():
    assert make_entity_texts(20, 1) == make_entity_texts(20, 1) != make_entity_texts(20, 2)


def test_spans_lie_in_their_texts_in_order_and_hold_names_of_every_label():
    texts = make_entity_texts(500, 3)
    assert {label for marked in texts for _start, _end, label in marked.spans} == set(LABELS)
    for marked in texts:
        end = 0
        for start, next_end, _label in marked.spans:
            name = marked.text[start:next_end]
            assert end <= start and name and name == name.strip() and "{" not in name
            end = next_end
    assert any(not marked.spans for marked in texts)
    assert len({marked.text for marked in texts}) > 400 and sum(map(len, TEMPLATES.values())) > 80


def test_some_texts_are_chinese_and_some_have_emoji():
    texts = "".join(marked.text for marked in make_entity_texts(200, 4))
    assert any("CJK" in unicodedata.name(character, "") for character in texts) and "🎉" in texts
    english = "".join(marked.text for marked in make_entity_texts(200, 4, ["en"]))
    assert not any("CJK" in unicodedata.name(character, "") for character in english)


def test_half_of_the_names_in_held_out_texts_are_new():
    frame = make_entity_frame(1500, 400, 5)
    names: dict[str, list[str]] = {"train": [], "eval": []}
    for text, label, split in frame.iter_rows():
        names[split] += [text[span["start"] : span["end"]] for span in json.loads(label)]
    known = set(names["train"])
    new = sum(name not in known for name in names["eval"]) / len(names["eval"])
    assert 0.3 < new < 0.7
