"""Metrics of scores are scikit-learn's and scipy's, their intervals hold the true value in 95 of 100 samples."""

import json
import warnings

import numpy as np
import pytest
from scipy.stats import bootstrap, pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from engine.data.labelled_rows import Split
from engine.tasks.regression_metrics import regression_metrics, scatter_sample, worst_rows


def sample(rows: int, seed: int = 0, digits: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true scores with many equal ones."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(3, 1, rows)
    return (0.7 * truth + rng.normal(1, 0.5, rows)).round(digits).astype(np.float32), truth.round(digits)


@pytest.mark.parametrize("rows", [2, 5, 300])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn_and_scipy(rows, seed):
    predicted, truth = sample(rows, seed, digits=1 if rows > 2 else 8)
    metrics = regression_metrics(predicted, truth, loss=0.25)
    assert metrics["loss"] == 0.25
    assert metrics["mae"] == pytest.approx(mean_absolute_error(truth, predicted))
    assert metrics["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted))
    assert metrics["r2"] == pytest.approx(r2_score(truth, predicted))
    assert metrics["pearson"] == pytest.approx(pearsonr(truth, predicted.astype(np.float64)).statistic)
    assert metrics["spearman"] == pytest.approx(spearmanr(truth, predicted).statistic)


def test_interval_of_pearson_is_that_of_scipy():
    predicted, truth = sample(80)
    expected = pearsonr(truth, predicted.astype(np.float64)).confidence_interval(0.95)
    assert regression_metrics(predicted, truth, 0.0)["intervals"]["pearson"] == pytest.approx(tuple(expected), abs=1e-4)


def test_interval_of_spearman_is_that_of_bonett_and_wright():
    # Psychometrika 65 (2000): tanh(atanh(r) ± 1.96 · sqrt((1 + r²/2) / (n - 3)))
    predicted, truth = sample(50)
    metrics = regression_metrics(predicted, truth, 0.0)
    r = metrics["spearman"]
    half_width = 1.96 * np.sqrt((1 + r * r / 2) / 47)
    expected = np.tanh([np.arctanh(r) - half_width, np.arctanh(r) + half_width])
    assert metrics["intervals"]["spearman"] == pytest.approx(list(expected))


@pytest.mark.parametrize("name", ["mae", "rmse", "r2"])
def test_intervals_agree_with_a_bootstrap(name):
    predicted, truth = sample(500, digits=6)

    def metric(predicted: np.ndarray, truth: np.ndarray) -> float:
        errors = predicted - truth
        values = {
            "mae": np.abs(errors).mean(),
            "rmse": np.sqrt(np.square(errors).mean()),
            "r2": 1 - np.square(errors).mean() / truth.var(),
        }
        return float(values[name])

    expected = bootstrap(
        (predicted, truth), metric, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=0
    ).confidence_interval
    low, high = regression_metrics(predicted, truth, 0.0)["intervals"][name]
    assert [low, high] == pytest.approx(list(expected), abs=0.25 * (high - low))
    assert high - low == pytest.approx(expected.high - expected.low, rel=0.1)


@pytest.mark.parametrize("predicted", [[2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0], [0.1, 0.1, 0.1, 0.1]])
@pytest.mark.parametrize("truth", [[0.1, 0.1, 0.1, 0.1], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 9.0]])
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_constant_scores_and_perfect_predictions_give_none_and_not_nan(predicted, truth, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = regression_metrics(np.array(predicted[:rows]), np.array(truth[:rows]), 0.0)
    json.dumps(metrics, allow_nan=False)
    is_constant = len(set(truth[:rows])) == 1
    assert (metrics["r2"] is None) == is_constant
    assert (metrics["pearson"] is None) == (is_constant or len(set(predicted[:rows])) == 1)


@pytest.mark.parametrize("unit", [1e-150, 1e100])
def test_unit_of_the_scores_changes_no_correlation(unit):
    predicted, truth = sample(100, digits=8)
    expected = regression_metrics(predicted, truth, 0.0)
    metrics = regression_metrics(predicted.astype(np.float64) * unit, truth * unit, 0.0)
    assert metrics["mae"] / unit == pytest.approx(expected["mae"])
    for name in ("r2", "pearson", "spearman"):
        assert metrics[name] == pytest.approx(expected[name])
        assert metrics["intervals"][name] == pytest.approx(expected["intervals"][name])


def test_scatter_has_both_ends_and_at_most_500_rows():
    predicted, truth = sample(3000, digits=8)
    points = scatter_sample(predicted, truth)
    assert len(points) == 500 and points == scatter_sample(predicted, truth)
    assert points[0][0] == truth.min() and points[-1][0] == truth.max()
    assert {tuple(point) for point in points} <= set(zip(truth.tolist(), predicted.tolist(), strict=True))
    assert scatter_sample(predicted[:1], truth[:1]) == [[truth[0], pytest.approx(predicted[0])]]
    assert len(scatter_sample(predicted[:7], truth[:7])) == 7


def test_worst_rows_have_the_largest_errors_in_either_direction():
    truth = np.array([1.0, 2.0, 3.0])
    rows = worst_rows(np.array([1.5, 0.0, 6.0]), Split(["a", "b", "c"], truth))
    assert rows[0] == {"text": "c", "score": 3.0, "predicted": 6.0, "error": 3.0}
    assert [row["error"] for row in rows] == [3.0, -2.0, 0.5]
