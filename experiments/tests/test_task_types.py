"""Results of every task type beside each other: what is said, compared, sorted and diagnosed."""

from importlib import import_module
from typing import Any, cast

import pytest
from django.apps import apps
from django.template.loader import get_template

from datasets_app.models import USUAL_TASK_TYPES
from engine.task_types import METRICS as ENGINE_METRICS
from engine.task_types import TaskType as EngineTaskType
from experiments.models import Experiment
from experiments.remedies import diagnose
from experiments.result_charts import describe_calibration, scores_chart
from experiments.task_types import METRIC_TITLES, TASK_TYPES, key_figures
from experiments.verdicts import verdict
from testing.experiments import LANGUAGE_MODEL, METRICS, row

pytestmark = pytest.mark.django_db

REGRESSION: dict[str, Any] = {
    "task": "regression",
    "labels": [],
    "eval": {
        "mae": 0.4, "rmse": 0.5, "r2": 0.8, "pearson": 0.9, "spearman": None, "loss": 0.2,
        "intervals": {"mae": [0.35, 0.46], "rmse": [0.4, 0.6], "r2": [0.7, 0.9], "pearson": [0.8, 0.95], "spearman": None},
    },
    "baseline": {"mean_mae": 1.2, "linear_mae": 0.44, "linear_pearson": 0.85},
    "worst": [{"text": "<b>odd</b>", "score": 1.0, "predicted": 4.0, "error": 3.0}],
    "scatter": [[0.0, 0.5], [5.0, 4.0]],
    "history": [{"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.5}, {"step": 2, "eval_rmse": 0.5, "eval_mae": 0.4}],
}  # fmt: skip
MULTI_LABEL: dict[str, Any] = {
    "task": "multi_label_classification",
    "labels": ["late", "loud"],
    "data": {"eval_rows": 100, "train_rows": 900},
    "eval": {
        "micro_f1": 0.8, "macro_f1": 0.7, "subset_accuracy": 0.6, "macro_average_precision": 0.75, "loss": 0.3,
        "per_label": {
            name: {"precision": 0.8, "recall": 0.8, "f1": 0.8, "support": 50, "average_precision": None if name == "loud" else 0.9}
            for name in ("late", "loud")
        },
    },
    "baseline": {"majority_micro_f1": 0.5, "linear_micro_f1": 0.95},
    "thresholds": {"late": 0.4, "loud": 0.5},
    "worst": [{"text": "hm", "labels": [], "predicted": ["late"], "probabilities": {"late": 0.9}, "loss": 2.0}],
    "calibration": {
        "temperature": [0.8, 1.2], "ece_before": 0.1, "ece_after": 0.02, "rows": 100, "confident_from": 0.7,
        "before": [{"low": 0, "high": 1, "confidence": 0.5, "accuracy": 0.4, "rows": 200}],
        "after": [{"low": 0, "high": 1, "confidence": 0.5, "accuracy": 0.48, "rows": 200}],
        "coverage": [{"coverage": 0.5, "accuracy": 0.95, "threshold": 0.8}, {"coverage": 1.0, "accuracy": 0.6, "threshold": 0.2}],
    },
}  # fmt: skip
BY_TYPE = {
    "sequence_classification": METRICS,
    "multi_label_classification": MULTI_LABEL,
    "regression": REGRESSION,
    "causal_lm": LANGUAGE_MODEL,
}


def make(member: Any, name: str, metrics: dict[str, Any]) -> Any:
    task_type = metrics.get("task", "sequence_classification")
    evaluation = metrics["eval"]
    values = {"accuracy": evaluation.get("accuracy"), "macro_f1": evaluation.get("macro_f1")}
    score = evaluation[TASK_TYPES[task_type].score]
    return row(member, name, metrics=metrics, task_type=task_type, score=score, eval_loss=evaluation["loss"], **values)


def test_each_task_type_of_the_engine_has_its_entry_metrics_and_template():
    assert TASK_TYPES.keys() == {*USUAL_TASK_TYPES.values()} == ENGINE_METRICS.keys()
    for name, facts in TASK_TYPES.items():
        metrics = ENGINE_METRICS[cast(EngineTaskType, name)]
        assert {facts.score, *facts.metrics, *facts.curves} <= set(metrics) & METRIC_TITLES.keys()
        get_template(f"experiments/results/{name}.html")


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh-hant"])
def test_page_of_each_result_shows_its_own_metrics_in_both_languages(browser, member, language):
    for task_type, metrics in BY_TYPE.items():
        make(member, task_type, metrics)
        tabs = [f"/experiments/{task_type}/?tab={tab}" for tab in ("overview", "errors", "labels", "answers")]
        for address in (*tabs, "/experiments/", "/experiments/?columns=score&sort=-score"):
            page = browser.get(address, headers={"accept-language": language}, follow=True)
            assert page.status_code == 200 and "<b>odd</b>" not in page.content.decode()
    assert (
        'id="calibration"'
        in browser.get("/experiments/multi_label_classification/?tab=errors", follow=True).content.decode()
    )
    assert "0.3500 to 0.4600" in browser.get("/experiments/regression/", follow=True).content.decode()
    page = browser.get("/experiments/regression/?tab=errors", follow=True).content.decode()
    assert "Confusion matrix" not in page and "&lt;b&gt;odd" in page


def test_verdict_names_interval_and_baselines():
    several = verdict(MULTI_LABEL)
    assert "Micro F1 is 0.800 (95% interval: 0.711 to 0.867)." in several
    assert "All labels are right in 60.0% of 100 held-out rows, give or take 9.4 points." in several
    assert "most frequent labels reaches 0.500, which is clearly worse." in several
    assert "linear model on words reaches 0.950, which is clearly better: train longer, or use that." in several
    score = verdict(REGRESSION)
    assert "Off by 0.4 on average on the held-out rows (95% interval: 0.35 to 0.46)." in score
    assert "explains 80% of the variance of the scores (R² 0.800)" in score
    assert "Always predicting the mean is off by 1.2, which is clearly worse." in score
    assert "A linear model on words is off by 0.44, which is about the same on so many rows." in score


def test_verdict_of_a_language_model_names_its_base_model():
    sentences = verdict(LANGUAGE_MODEL)
    assert "90.0% of the answers to held-out prompts are exactly those of the data (base model: 0.0%)." in sentences
    assert "100.0% are valid JSON (base model: 10.0%)." in sentences
    assert "predicts 97.0% of the answers' tokens (base model: 50.0%)." in sentences
    words = LANGUAGE_MODEL | {"eval": {"token_accuracy": 0.97, "rouge_l": 0.95}}
    assert "Answers share 95.0% of their words with the expected ones" in verdict(words)
    assert "(ROUGE-L) (base model: 20.0%)." in verdict(words) and "ROUGE" not in sentences  # JSON says more of JSON
    kept = verdict(LANGUAGE_MODEL | {"forgetting": {"texts": 1, "base_loss": 3.0, "loss": 3.04}})
    assert kept.endswith("Its loss on ordinary sentences is 3.04 (base model: 3.00): little was forgotten.")
    forgotten = verdict(LANGUAGE_MODEL | {"forgetting": {"texts": 1, "base_loss": 3.0, "loss": 4.0}})
    assert "rose from 3.00 to 4.00: it has forgotten much" in forgotten and "lower learning rate" in forgotten
    plain = LANGUAGE_MODEL | {"eval": {"loss": 0.1, "token_accuracy": 0.97}, "baseline": {}}
    assert verdict(plain) == "The model predicts 97.0% of the tokens that it is trained to write."


@pytest.mark.parametrize(
    ("metric", "score", "expected"),
    [
        ("r2", 0.05, "not clearly better than always predicting the mean"),
        ("r2", -0.2, "did not learn"),
        ("r2", None, "R² is undefined, and 0.000 without reading the texts."),
        ("macro_average_precision", 0.3, "not clearly better than giving labels at random"),
        ("entity_f1", 0.01, "not clearly better than finding no entity"),
        ("token_accuracy", 0.4, "not clearly better than its base model"),
    ],
)
def test_run_that_did_not_learn_is_diagnosed_whatever_its_type(metric, score, expected):
    evidence = {"metric": metric, "score": score, "baseline": 0.0, "margin": 0.5, "eval_rows": 20}
    diagnosis = diagnose(REGRESSION | {"result": {"learned": False, "cause": "data", "evidence": evidence}}, {})
    assert diagnosis and expected in diagnosis.message


def test_comparison_has_only_what_both_have_and_lower_errors_are_better(browser, member):
    make(member, "first", REGRESSION)
    worse = REGRESSION | {"eval": REGRESSION["eval"] | {"mae": 0.6, "rmse": 0.7, "r2": 0.5}}
    make(member, "second", worse)
    make(member, "labels", METRICS)
    page = browser.get("/experiments/compare?name=first&name=second")
    best = {line["column"].key: [cell["best"] for cell in line["cells"]] for line in page.context["measures"]}
    assert best["mae"] == best["rmse"] == best["r2"] == [True, False] and "accuracy" not in best
    mixed = browser.get("/experiments/compare?name=first&name=labels")
    shown = {line["column"].key: [cell["best"] for cell in line["cells"]] for line in mixed.context["measures"]}
    assert "mae" not in shown and "accuracy" not in shown and shown["loss"] == [False, False]


def test_comparison_of_language_models_has_their_answers_side_by_side(browser, member):
    other = {"prompt": "<b>odd</b>", "expected": "{}", "base": "Sure!", "tuned": "[]"}
    make(member, "first", LANGUAGE_MODEL)
    make(member, "second", LANGUAGE_MODEL | {"answers": [other, other | {"prompt": "only here"}]})
    page = browser.get("/experiments/compare?name=first&name=second")
    (row,) = page.context["answers"]
    assert [(each.text, each.is_expected) for each in row["answers"]] == [("{}", True), ("[]", False)]
    assert "&lt;b&gt;odd" in page.content.decode() and "only here" not in page.content.decode()
    best = {line["column"].key: [cell["best"] for cell in line["cells"]] for line in page.context["measures"]}
    assert {
        "exact_match",
        "rouge_l",
        "json_valid",
        "token_accuracy",
        "perplexity",
    } <= best.keys() and "accuracy" not in best


def test_list_sorts_by_score_and_marks_no_best_across_types(browser, member):
    for task_type, metrics in BY_TYPE.items():
        make(member, task_type, metrics)
    page = browser.get("/experiments/?sort=-score")
    scores = [cell for line in page.context["lines"] for cell in line["cells"] if cell["column"].key == "score"]
    assert [cell["value"] for cell in scores] == [0.97, 0.8, 0.8, 0.8] and not any(cell["best"] for cell in scores)


def test_calibration_is_told_in_words_and_drawn():
    section = describe_calibration(MULTI_LABEL)
    assert section
    text = " ".join(section["sentences"])
    assert "by 2.0 points on average" in text and "before calibration by 10.0 points" in text
    assert "from 0.80 to 1.20, was fitted on 100 evaluation rows; the reported errors are cross-fitted" in text
    assert "at least 70.0% are called confident: those are 50% of the held-out rows, and 95.0% of them" in text
    reliability, coverage = section["charts"]
    assert [series["label"] for series in reliability["series"]] == ["calibrated", "before", "perfect"]
    assert coverage["series"][0]["points"] == [[0.5, 0.95], [1.0, 0.6]]
    none = MULTI_LABEL | {"calibration": MULTI_LABEL["calibration"] | {"confident_from": None}}
    assert "No probability is high enough" in " ".join((describe_calibration(none) or {})["sentences"])
    assert describe_calibration(METRICS) is None and scores_chart(METRICS) is None


def test_key_figures_carry_their_intervals():
    figures = {str(figure["title"]): (figure["low"], figure["high"]) for figure in key_figures(REGRESSION)}
    assert figures["R²"] == (0.7, 0.9) and figures["Spearman correlation"] == (None, None)


def test_existing_rows_get_their_accuracy_as_the_score(member):
    row(member, "old", accuracy=0.7, score=None)
    import_module("experiments.migrations.0006_existing_scores").copy_accuracy(apps, None)
    old = Experiment.objects.get()
    assert (old.score, old.score_name, old.task_type) == (0.7, "accuracy", "sequence_classification")
