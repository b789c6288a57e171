"""Notices about data stay readable whatever the number and the length of label names."""

from engine.training.notices import data_notices


def messages(**facts):
    return {notice.code: notice.message for notice in data_notices(facts)}


def test_rare_labels_are_counted_and_the_first_ten_are_named():
    message = messages(rare_labels=[f"label {number}" for number in range(1500)])["rare_label"]
    assert message.startswith("Labels with fewer than two training rows (1500): label 0, label 1,")
    assert message.endswith("label 9 and 1490 more.")


def test_long_names_are_cut():
    assert len(messages(rare_labels=["x" * 300] * 40)["rare_label"]) < 1000


def test_labels_that_differ_in_a_blank_are_told_so_that_the_blank_is_seen():
    message = messages(similar_labels=[["yes", "yes "]])["similar_labels"]
    assert "'yes' and 'yes '" in message


def test_much_larger_evaluation_than_asked_for_is_explained():
    facts = {"labels": ["bad", "good"], "train_rows": 285, "eval_rows": 135, "eval_fraction": 0.1}
    message = messages(held_out_share=135 / 420, **facts)["held_out_share"]
    assert message.startswith(
        "32% of the rows are held out for evaluation instead of 10%: near-duplicates stay on one side"
    )
    assert not messages(held_out_share=0.14, **facts) and not messages(held_out_share=None, **facts)
    assert not messages(held_out_share=0.2, **facts | {"train_rows": 8, "eval_rows": 2})  # one row of each label


def test_whole_data_have_no_notice():
    assert messages(rare_labels=[], similar_labels=[], skipped_by_reason={}, truncated_rows=0) == {}
