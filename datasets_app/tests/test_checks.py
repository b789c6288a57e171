"""Each check finds what it should, names the rows, and reports nothing for good rows."""

import gettext
from pathlib import Path

import django
import polars as pl
import pytest

import samples
from datasets_app import descriptions
from datasets_app.checks import findings
from datasets_app.checks.labels import are_scores, no_labels, similar_labels
from datasets_app.checks.languages import survey_languages
from datasets_app.reading.columns import ColumnChoice
from datasets_app.reading.stored_rows import Rows
from datasets_app.versions.canonical import count_values

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
    return Rows(frame, ColumnChoice(("text",), ("label",)))


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
    given.left_out = {"no_text": 2, "no_label": 1}
    given.skipped_examples = [{"row": 5, "text": "", "label": "a"}]
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
    rows = Rows(_frame(traditional + simplified), ColumnChoice(("text",), ("label",)))
    report = {result.code: result for result in findings.run_checks(rows).results}
    assert report["mixed_language"].count == 5
    assert {e["language"] for e in report["mixed_language"].examples} == {"Chinese (Simplified)"}


@pytest.mark.medium
def test_a_dozen_foreign_rows_are_listed_among_two_thousand():
    english = [
        (
            f"we waited {i} minutes for the {WORDS[i % 15]} and the {WORDS[i * 7 % 13]} near the {WORDS[i // 15 % 15]}",
            "a",
        )
        for i in range(2160)
    ]
    foreign = [
        *((f"Wir haben {i} Stunden auf unser Essen gewartet, und dann war die Suppe kalt", "b") for i in range(4)),
        *((f"Nous avons attendu {i} heures avant de manger, et la soupe était froide", "b") for i in range(4)),
        *((f"我們等了 {i} 個小時才吃到飯，而且湯已經涼了，下次不會再來", "b") for i in range(4)),
    ]
    rows = _frame(english[:1000] + foreign + english[1000:])
    (result,) = [
        r
        for r in findings.run_checks(Rows(rows, ColumnChoice(("text",), ("label",)))).results
        if r.code == "mixed_language"
    ]
    assert result.rows == [e["row"] for e in result.examples] == list(range(1001, 1013))
    assert [e["language"] for e in result.examples] == ["German"] * 4 + ["French"] * 4 + ["Chinese (Traditional)"] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "language"),
    [("id", "Indonesian"), ("cy", "Welsh"), ("nb", "Norwegian"), ("uz", "Unknown"), ("gl", "Unknown")],
)
def test_language_is_not_taken_for_another_that_the_detector_knows_better(code, language):
    catalogue = gettext.translation("django", Path(django.__file__).parent / "conf" / "locale", [code])._catalog  # type: ignore[attr-defined]
    sentences = {text for text in catalogue.values() if 40 < len(text) < 200}
    frame = _frame([(text, "a") for text in sorted(sentences)])
    survey = survey_languages(frame)
    assert next(iter(survey.counts)) == language and survey.counts[language] > 0.9 * sum(survey.counts.values())
    assert survey.others.height <= 2


@pytest.mark.slow
def test_samples_have_nearly_no_rows_that_are_taken_for_another_language():
    tweets = survey_languages(samples.tweets_en().select("text", "label").with_row_index("row", offset=1))
    assert {"Dutch", "Spanish"} <= set(tweets.others["language"]) and tweets.others.height < 10
    reviews = survey_languages(samples.reviews_zh().select("text", "label").with_row_index("row", offset=1))
    languages = count_values(reviews.others["language"])
    assert set(languages) - {"Chinese (Traditional)", "English"} <= {"Japanese"} and languages["English"] < 40


def _frame(pairs):
    return pl.DataFrame(pairs, schema=["text", "label"], orient="row").with_row_index("row", offset=1)


@pytest.mark.parametrize(
    "labels",
    [
        ["Positive", "positive", "POSITIVE", "positive.", "positive  !"],
        ["ne\u0301gatif", "négatif"],
        ["1", "1.0", "true", "True"],
        ["not spam", "not_spam", "Not-Spam", "not\u00a0spam", "not spam\u200b"],
        ["ＡＢ１", "AB1"],
    ],
)
def test_labels_that_look_alike_are_named_with_the_one_to_keep(labels):
    pairs = [
        (f"{WORDS[i]} tells a story of its own, number {i * i}", label) for i, label in enumerate([*labels, labels[0]])
    ]
    result = results(*pairs)["similar_labels"]
    assert result.examples[0] == {
        "label": labels[0],
        "labels": [labels[0], *result.examples[0]["labels"][1:]],
        "rows": len(pairs),
    }
    assert set(result.examples[0]["labels"]) == set(labels) and result.count == len(labels)
    message = descriptions.describe_finding("similar_labels", result.count, result.examples)
    assert "look alike" in message and all(f"“{label}”" in message for label in labels)


@pytest.mark.parametrize("labels", [["1", "-1"], ["C", "C++", "C#"], ["+", "-"], ["1.5", "15"], ["a", "á"], ["?", "!"]])
def test_labels_that_differ_do_not_look_alike(labels):
    assert similar_labels(dict.fromkeys(labels, 1)) == []


def test_a_long_list_of_labels_fits_into_the_message():
    labels = {f"{'label ' * 40}{i}{end}": 1 for i in range(99) for end in ("", ".")}
    groups = similar_labels(labels)
    examples = [{"label": group[0], "labels": group, "rows": 2} for group in groups]
    assert len(descriptions.describe_finding("similar_labels", 198, examples)) <= 500


def test_marks_for_no_label_are_named_with_their_rows():
    marks = ["NULL", "N/A", "-", "nan", "None", "?"]
    pairs = [(f"{WORDS[i]} tells a story of its own, number {i * i}", mark) for i, mark in enumerate(marks)]
    result = results(*pairs)["no_label"]
    assert result.rows == [41, 42, 43, 44, 45, 46]
    message = descriptions.describe_finding("no_label", result.count, result.examples)
    assert "no label" in message and all(mark in message for mark in marks)


@pytest.mark.parametrize("labels", [{"+": 5, "-": 5, "0": 4}, {"none": 5, "spam": 5}, {"yes": 3, "no": 3}])
def test_labels_that_mean_something_are_no_marks(labels):
    assert no_labels(labels) == []


def test_scores_that_pose_as_labels_are_told():
    pairs = [(f"{WORDS[i % 15]} tells a story of its own, number {i * i}", f"{i / 7:.3f}") for i in range(60)]
    frame = _frame(pairs)
    report = {r.code: r for r in findings.run_checks(Rows(frame, ColumnChoice(("text",), ("label",)))).results}
    assert report["scores_as_labels"].count == 60
    assert not are_scores({f"{i / 2}": 5 for i in range(11)})  # ratings from 0 to 5


@pytest.mark.parametrize(
    "text", ["\u200b\u200b\u200b\u200b", "\u00a0 \ufeff \u00a0", "\x07\x08\ufe0f\u2060", "\u3164 \u2800 \u3164"]
)
def test_text_of_invisible_characters_counts_as_empty(text):
    assert results((text, "a"))["too_short"].rows == [41]
    assert not _frame([(text, "a")]).select(findings.has_visible_text())["text"][0]


@pytest.mark.parametrize(
    "text", ["ab!", "好嗎？", "\u200babc", "\U0001f469\u200d\U0001f467 ok", "e\u0301e\u0301e\u0301"]
)
def test_text_with_three_visible_characters_is_long_enough(text):
    assert "too_short" not in results((text, "a"))


@pytest.mark.parametrize(("near_duplicates", "severity"), [(2, "info"), (20, "warning")])
def test_near_duplicates_are_rated_by_their_share(near_duplicates, severity):
    line = "the quick brown fox jumps over the lazy old dog near home on a rainy day in {}"
    pairs = [(line.format(WORDS[i % 15] + str(i)), "a") for i in range(near_duplicates + 1)]
    assert results(*pairs)["near_duplicate"].severity == severity


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
    report = findings.run_checks(Rows(frame, ColumnChoice(("text",), ("label",))))
    codes = {"exact_duplicate", "near_duplicate", "label_conflict", "encoding", "personal_data"}
    assert codes <= {f.code for f in report.results}
    assert sum(report.tokens.values()) == frame.height and 20 < max(report.tokens, key=report.tokens.__getitem__) < 40
