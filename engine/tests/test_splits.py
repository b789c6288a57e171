"""Held-out rows: the same in any order of rows, unchanged when rows are added, stratified, near-duplicates together."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.near_duplicates import group_near_duplicates
from engine.data.splits import PLACE_COLUMN, PLACES, assign_places, is_held_out

WORDS = st.sampled_from(
    ["river", "lamp", "carpet", "window", "violin", "mountain", "paper", "ocean", "garden", "silver"]
)
TEXTS = st.lists(WORDS, min_size=4, max_size=12).map(" ".join)
ROWS = st.lists(st.tuples(TEXTS, st.sampled_from("ab")), min_size=1, max_size=40)


def frame(rows: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"text": pl.String, "label": pl.String}, orient="row")


def placed(rows: list[tuple[str, str]], earlier: pl.DataFrame | None = None) -> pl.DataFrame:
    given_rows = frame(rows)
    return given_rows.with_columns(assign_places(given_rows["text"], given_rows["label"], earlier))


def many_rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    text = "text number {} of all that {} people wrote in {}"
    return [(text.format(i * i, i * 7919 % 1000, i), "aab"[i % 3]) for i in range(start, start + count)]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(ROWS, st.randoms())
def test_order_of_rows_makes_no_difference(rows, random):
    shuffled = [*rows]
    random.shuffle(shuffled)
    one, other = placed(rows), placed(shuffled)
    assert one.unique().sort("text", "label").equals(other.unique().sort("text", "label"))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_rows_keep_their_place_when_rows_are_added(before, more):
    old = placed(before)
    new = placed(before + more, old)
    assert new[PLACE_COLUMN][: len(before)].to_list() == old[PLACE_COLUMN].to_list()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_no_group_of_near_duplicates_has_a_new_row_on_the_other_side(before, more):
    new = placed(before + more, placed(before))
    grouped = new.with_columns(*group_near_duplicates(new["text"]).get_columns())
    added = grouped[len(before) :].filter(~pl.col("text").is_in([text for text, _ in before])).drop_nulls(PLACE_COLUMN)
    sides = grouped.drop_nulls(PLACE_COLUMN).group_by("group").agg(pl.col(PLACE_COLUMN).n_unique().alias("sides"))
    assert added.join(sides.filter(pl.col("sides") > 1), on="group").is_empty()


def test_near_duplicates_are_on_one_side_in_english_and_chinese():
    pairs = [
        ("the quick brown fox jumps over the lazy old dog near home", "the quick brown fox jumps over the lazy old dog near home now"),
        ("這家餐廳的服務非常好，我們下次一定還會再來，價錢也很合理", "這家餐廳的服務非常好，我們下次一定還會再來，價錢也很合理！"),
    ]  # fmt: skip
    rows = many_rows(200) + [(text, "a") for pair in pairs for text in pair]
    place_of = dict(zip(*placed(rows).select("text", PLACE_COLUMN).get_columns(), strict=True))
    assert all(place_of[one] == place_of[other] for one, other in pairs)


def test_each_share_is_stratified_and_holds_the_smaller_one():
    rows = placed(many_rows(900))
    held: set[str] = set()
    for share in (0.05, 0.1, 0.3):
        chosen = rows.filter(is_held_out(share))
        for label, count in rows["label"].value_counts().iter_rows():
            assert abs(chosen.filter(label=label).height - share * count) <= 1
        assert held <= set(chosen["text"])
        held = set(chosen["text"])


def test_added_rows_are_held_out_in_the_same_share():
    rows = placed(many_rows(1200), placed(many_rows(600)))
    assert abs(rows[600:].filter(is_held_out(0.1)).height - 60) <= 3


def test_small_label_is_is_held_out_too():
    rows = placed([*many_rows(60), ("one of two rare rows of text", "c"), ("the other that is quite unlike", "c")])
    assert rows.filter(is_held_out(0.1), label="c").height == 1


def test_new_row_between_two_sides_is_left_out():
    one, other = (" ".join(f"w{i}" for i in range(a, a + 10)) for a in (0, 2))
    earlier = pl.DataFrame({"text": [one, other], PLACE_COLUMN: pl.Series([0, PLACES - 1], dtype=pl.UInt16)})
    between = " ".join(f"w{i}" for i in range(1, 11))
    rows = placed([(one, "a"), (other, "a"), (between, "a"), *many_rows(20)], earlier)
    assert rows[PLACE_COLUMN][:2].to_list() == [0, PLACES - 1]
    assert rows[PLACE_COLUMN][2] in (None, 0, PLACES - 1)
