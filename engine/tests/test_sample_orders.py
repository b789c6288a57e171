"""The sample dataset "orders" and the sample language model."""

import json
import re

import pytest

from engine.models import base_models
from samples import SAMPLE_LANGUAGE_MODEL, language_model, orders
from samples.orders import FIRST_NAMES, GOODS, LAST_NAMES, PHRASES, TEST_PHRASES


@pytest.mark.medium
def test_orders_are_the_same_at_each_call_and_no_text_comes_twice():
    frame = orders()
    assert frame.equals(orders())
    texts = [row[1]["content"] for row in frame["messages"].to_list()]
    assert len(set(texts)) == len(texts) == 2000


@pytest.mark.medium
def test_each_answer_is_the_order_in_its_text():
    for messages in orders()["messages"].to_list():
        text = messages[1]["content"].casefold()
        order = json.loads(messages[2]["content"])
        assert order["customer"].casefold() in text and f"{order['item']}s" in text
        assert f"{order['unit_price']:.2f}" in text


@pytest.mark.medium
def test_phrases_of_test_rows_occur_in_no_other_row():
    assert not set(PHRASES) & set(TEST_PHRASES)
    frame = orders()
    texts = [(split, messages[1]["content"]) for messages, split in frame.iter_rows()]
    names = "|".join(f"{first} " for first in FIRST_NAMES)
    for phrase in TEST_PHRASES:
        pattern = re.escape(phrase)
        for field, values in {
            "customer": rf"(?:{names})(?:{'|'.join(LAST_NAMES)})",
            "goods": rf"(?:{'|'.join(GOODS)})s",
            "quantity": r"\w+",
            "price": r"\S+(?: \S+)?",
        }.items():
            pattern = pattern.replace(re.escape(f"{{{field}}}"), values)
        assert {split for split, text in texts if re.fullmatch(pattern, text, re.I)} == {"test"}


def test_interrupted_conversion_leaves_nothing_and_is_done_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))

    def stop(source, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(language_model, "_convert", stop)
    with pytest.raises(KeyboardInterrupt):
        language_model.language_model_path()
    assert list(tmp_path.rglob("config.json")) == []
    monkeypatch.setattr(language_model, "_convert", lambda source, folder: (folder / "config.json").write_text("{}"))
    folder = base_models.resolve(SAMPLE_LANGUAGE_MODEL, None)
    assert (folder / "config.json").is_file() and base_models.find_origin(folder) == "sample"
