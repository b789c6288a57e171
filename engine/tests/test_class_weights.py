"""Weights of labels: taken by name, and refused beside their field if they cannot mean anything."""

import pytest

from engine import ConfigError, RunConfig
from engine.tasks.class_weights import weights_by_label

LABELS = ["bad", "good", "odd"]


def read(weights: str) -> RunConfig:
    return RunConfig.from_yaml(f"training: {{class_weights: {weights}}}")


def refusal(weights: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(weights)
    assert [problem.field for problem in refused.value.problems] == ["training.class_weights"]
    return str(refused.value)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("{1: 2.0}", {"1": 2.0}),
        ("{1.5: 2.0, 2024-11-25: 3}", {"1.5": 2.0, "2024-11-25": 3.0}),
        ("{'yes': 2, good: 0}", {"yes": 2.0, "good": 0.0}),
    ],
)
def test_names_that_yaml_reads_as_numbers_or_dates_are_names(weights, expected):
    assert read(weights).training.class_weights == expected


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{good: -1.0}", "none of them negative"),
        ("{yes: 2}", "Put such labels in quotes"),
        ("{1: 2, '1': 3}", "names a label twice"),
        ("often", "none, balanced, or a mapping"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, message):
    assert message in refusal(weights)


def test_labels_without_a_weight_have_the_weight_1():
    assert weights_by_label({"good": 3.0, "odd": 0.0}, LABELS) == [1.0, 3.0, 0.0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"goood": 3.0}, "Did you mean 'good'?"),
        ({"GOOD": 3.0}, "Did you mean 'good'?"),
        ({"zebra": 3.0}, "Labels: bad, good, odd."),
        (dict.fromkeys(LABELS, 0.0), "all weights are 0"),
    ],
)
def test_unknown_names_and_weights_of_nothing_but_0_are_refused(setting, message):
    with pytest.raises(ConfigError) as refused:
        weights_by_label(setting, LABELS)
    assert message in str(refused.value) and refused.value.field == "training.class_weights"


def test_all_unknown_names_are_reported_at_once_and_long_lists_are_cut():
    with pytest.raises(ConfigError) as refused:
        weights_by_label({"zebra": 1.0, "quagga": 2.0}, [f"l{number}" for number in range(1000)])
    assert len(refused.value.problems) == 2 and "and 990 more" in str(refused.value) and len(str(refused.value)) < 500


def test_early_stopping_without_evaluations_is_refused():
    with pytest.raises(ConfigError, match="counts evaluations") as refused:
        RunConfig.parse({"training": {"eval_strategy": "no", "early_stopping_patience": 2}})
    assert refused.value.field == "training.early_stopping_patience"
