"""Each check finds what it should, names the rows, and reports nothing for good rows."""

import polars as pl
import pytest

from datasets_app import descriptions
from datasets_app.checks import findings
from datasets_app.reading.columns import ColumnChoice, Rows

WORDS = (
    *("river", "lamp", "carpet", "window", "violin", "mountain", "paper", "ocean"),
    *("garden", "silver", "bottle", "engine", "castle", "feather", "thunder"),
)


def rows(*pairs, splits=None):
    """Return 40 good rows, then the given (text, label) pairs as row 41 and on."""
    good = [(f"{WORDS[i % 15]} {WORDS[i * 7 % 13]} {i} {WORDS[i // 15]} {i * i}", "ab"[i % 2]) for i in range(40)]
    frame = pl.DataFrame([*good, *pairs], schema=["text", "label"], orient="row").with_row_index("row", offset=1)
    if splits:
        frame = frame.with_columns(pl.Series("split", ["train"] * 40 + splits))
    return Rows(frame, ColumnChoice("text", "label", None))


def results(*pairs, **options):
    return {f.code: f for f in findings.run_checks(rows(*pairs, **options)).results}


def test_good_rows_have_no_findings():
    assert results() == {}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("too_short", "a"),
        ("too_long", "w" * 2100),
        ("over_token_limit", "word " * 150),
        ("markup", "a <b>bold</b> claim"),
        ("markup", "fish &amp; chips"),
        ("control_characters", "zero\u200bwidth"),
        ("control_characters", "bell \x07 rings"),
        ("encoding", "broken \ufffd here"),
        ("encoding", "It doesnâ€™t work at all"),
        ("personal_data", "write to jane.roe@example.org today"),
        ("personal_data", "call 0912-345-678 now"),
        ("personal_data", "市話 (02) 2345-6789 分機"),
        ("personal_data", "call +44 20 7946 0958 now"),
        ("personal_data", "his number is A123456789 they say"),
    ],
)
def test_text_is_found_by_its_row(code, text):
    report = results((text, "a"))
    assert set(report) == {code}
    assert report[code].count == 1 and report[code].examples[0]["row"] == 41


@pytest.mark.parametrize(
    "text", ["3 < 5 and 7 > 2", "in 2019 we sold 1234567 units", "A123456780 is a part number", "naïve café 👩‍👩‍👧"]
)
def test_harmless_text_has_no_findings(text):
    assert results((text, "a")) == {}


def test_exact_duplicates_name_the_first_row():
    report = results(("one and the same thing", "a"), ("one and the same thing", "a"))
    assert report["exact_duplicate"].count == 1
    assert (
        report["exact_duplicate"].examples[0] | {"row": 42, "same_as_row": 41} == report["exact_duplicate"].examples[0]
    )


def test_near_duplicates_are_found_in_english_and_chinese():
    report = results(
        ("the quick brown fox jumps over the lazy old dog near home", "a"),
        ("the quick brown fox jumps over the lazy old dog near home now", "b"),
        ("這家餐廳的服務非常好，我們下次一定還會再來，價錢也很合理", "a"),
        ("這家餐廳的服務非常好，我們下次一定還會再來，價錢也很合理！", "b"),
    )
    assert [(e["row"], e["like_row"]) for e in report["near_duplicate"].examples] == [(42, 41), (44, 43)]


def test_same_text_with_two_labels_is_a_conflict():
    assert results(("Same  Thing here", "a"), ("same thing here", "b"))["label_conflict"].count == 2


def test_same_text_in_two_splits_is_an_error():
    report = results(("same thing here", "a"), ("same thing here", "a"), splits=["train", "eval"])
    assert report["split_leakage"].severity == "error" and report["split_leakage"].count == 2


def test_label_with_one_row_is_an_error_that_names_it():
    report = results(("a lonely text of its own", "c"))
    assert report["rare_label"].severity == "error"
    assert report["rare_label"].examples[0] | {"row": 41, "label": "c", "rows": 1} == report["rare_label"].examples[0]
    assert report["label_imbalance"].count == 20


def test_rows_left_out_are_reported():
    given = rows()
    given.skipped, given.skipped_examples = 3, [{"row": 5, "text": "", "label": "a"}]
    (only,) = findings.run_checks(given).results
    assert (only.code, only.count) == ("empty_text", 3)


def test_another_language_is_found():
    english = [
        (f"the weather in this part of the country was rather nice on day {i} of the month", "a") for i in range(30)
    ]
    german = [
        (f"das Wetter war am Tag {i} in diesem Teil des Landes eigentlich ganz schön und warm", "b") for i in range(5)
    ]
    report = results(*english, *german)
    assert report["mixed_language"].count == 5
    assert {e["language"] for e in report["mixed_language"].examples} == {"German"}


def test_simplified_chinese_is_found_among_traditional():
    traditional = [(f"這家餐廳的服務很好，我們第 {i} 次來還是覺得價錢合理，下回會再來", "a") for i in range(30)]
    simplified = [(f"这家餐厅的服务很好，我们第 {i} 次来还是觉得价钱合理，下回会再来", "b") for i in range(5)]
    rows = Rows(_frame(traditional + simplified), ColumnChoice("text", "label", None))
    report = {result.code: result for result in findings.run_checks(rows).results}
    assert report["mixed_language"].count == 5
    assert {e["language"] for e in report["mixed_language"].examples} == {"Chinese (Simplified)"}


def _frame(pairs):
    return pl.DataFrame(pairs, schema=["text", "label"], orient="row").with_row_index("row", offset=1)


def test_every_finding_has_a_title_and_a_sentence():
    assert set(descriptions.FINDING_TITLES) == set(descriptions._SENTENCES)
    for code in descriptions.FINDING_TITLES:
        assert "1,234" in descriptions.describe_finding(code, 1234) and "%" not in descriptions.describe_finding(
            code, 1
        )


@pytest.mark.slow
def test_all_sample_tweets_are_checked():
    from samples import tweets_en

    frame = tweets_en().select("text", "label").with_row_index("row", offset=1)
    report = findings.run_checks(Rows(frame, ColumnChoice("text", "label", None)))
    codes = {"exact_duplicate", "near_duplicate", "label_conflict", "encoding", "personal_data"}
    assert codes <= {f.code for f in report.results}
    assert sum(report.tokens.values()) == frame.height and 20 < max(report.tokens, key=report.tokens.__getitem__) < 40
