"""A run that finished but did not learn: what is said about it, and what is proposed."""

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import translation

from engine.config import RunConfig
from engine.config_sections import SAMPLE_MODEL
from experiments import results, services
from experiments.models import Experiment
from experiments.remedies import CAUSES, apply_remedy, diagnose, outcome
from testing.experiments import METRICS, did_not_learn, row

pytestmark = pytest.mark.django_db

LEARNED = METRICS | {"result": {"learned": True, "cause": "", "evidence": {}}}


def config(**sections: Any) -> dict[str, Any]:
    return RunConfig.parse(sections).model_dump(mode="json")


@pytest.mark.parametrize(
    ("cause", "sections", "remedy"),
    [
        ("learning_rate_too_high", {"training": {"learning_rate": 1.0}}, {"training": {"learning_rate": 0.0005}}),
        ("learning_rate_too_high", {"training": {"learning_rate": 2e-4}}, {"training": {"learning_rate": 2e-5}}),
        ("learning_rate_too_high", {"training": {"learning_rate": 0.01, "max_grad_norm": 0}},
         {"training": {"learning_rate": 0.0005, "max_grad_norm": 1.0}}),
        ("learning_rate_too_high", {"lora": {"loraplus_lr_ratio": 500}}, {"lora": {"loraplus_lr_ratio": None}}),
        ("learning_rate_too_high", {"training": {"learning_rate": 0.1}, "lora": {"loraplus_lr_ratio": 4}},
         {"lora": {"loraplus_lr_ratio": None}, "training": {"learning_rate": 0.0005}}),
        ("learning_rate_too_low", {"training": {"learning_rate": 1e-7}}, {"training": {"learning_rate": 0.0005}}),
        ("learning_rate_too_low", {"training": {"learning_rate": 3e-4}}, {"training": {"learning_rate": 0.003}}),
        ("learning_rate_too_low", {"training": {"learning_rate": 0.02}}, {}),
        ("unknown_tokens", {"model": {"name": "bert-base-chinese", "revision": "main"}, "lora": {"target_modules": ["query"]}},
         {"model": {"name": SAMPLE_MODEL, "revision": None}, "lora": {"target_modules": None}}),
        ("unknown_tokens", {}, {}),  # English texts, and the sample model already
        ("precision", {}, {"training": {"precision": "fp32"}}),
        ("precision", {"training": {"precision": "fp32"}, "model": {"load_in_4bit": True}}, {"model": {"load_in_4bit": False}}),
        ("too_few_steps", {}, {"training": {"num_train_epochs": 50}}),  # 64 rows, 32 a step: 100 steps
        ("too_few_steps", {"training": {"max_steps": 12}}, {"training": {"num_train_epochs": 50, "max_steps": None}}),
        ("data", {}, {}),
        ("a cause of a later release", {}, {}),
    ],
)  # fmt: skip
def test_each_cause_has_a_remedy_that_is_a_valid_configuration(
    cause: str, sections: dict[str, Any], remedy: dict[str, Any]
) -> None:
    before = config(**sections)
    diagnosis = diagnose(did_not_learn(cause), before)
    assert diagnosis and diagnosis.remedy == remedy and bool(diagnosis.button) == bool(remedy)
    after = RunConfig.parse(apply_remedy(before, diagnosis.remedy)).model_dump(mode="json")
    changed = [f"{section}.{name}" for section, values in remedy.items() for name in values]
    assert [change.path for change in diagnosis.changes] == changed
    assert all(
        after[path.split(".")[0]][path.split(".")[1]] == remedy[path.split(".")[0]][path.split(".")[1]]
        for path in changed
    )


def test_more_epochs_are_counted_in_windows_where_texts_are_cut_into_them() -> None:
    metrics = did_not_learn("too_few_steps")
    metrics["data"]["windows"] = 8 * metrics["data"]["train_rows"]
    diagnosis = diagnose(metrics, config())
    assert diagnosis and diagnosis.remedy == {"training": {"num_train_epochs": 7}}  # 100 steps of 16 in each


def test_texts_that_are_not_english_get_a_multilingual_base_model() -> None:
    metrics = did_not_learn("unknown_tokens") | {"worst": [{"text": "这家酒店的房间很干净"}]}
    diagnosis = diagnose(metrics, config())
    assert diagnosis and diagnosis.remedy == {"model": {"name": "xlm-roberta-base"}}


def test_evidence_is_in_numbers() -> None:
    diagnosis = diagnose(did_not_learn("unknown_tokens", unknown_token_share=0.413), config())
    assert diagnosis and "41.3% of the tokens" in diagnosis.message
    assert "Training loss went from 0.700 to 0.690." in diagnosis.message
    assert "Every held-out row is predicted as “good”." in diagnosis.message
    rate = diagnose(did_not_learn("learning_rate_too_high"), config(training={"learning_rate": 0.5}))
    assert rate and "the learning rate (0.5) is too high" in rate.message
    better = diagnose(did_not_learn("data", accuracy=0.55), config())
    assert better and better.headline.endswith("not clearly better than always predicting the most frequent label.")
    precision = diagnose(did_not_learn("precision", precision="bf16", median_grad_norm=3e-9), config())
    assert precision and "the precision bf16" in precision.message and "(median norm 3e-09)" in precision.message


@pytest.mark.parametrize("metrics", [METRICS, LEARNED, {}])
def test_nothing_is_said_about_a_run_that_learned_or_of_which_it_is_not_known(metrics: dict[str, Any]) -> None:
    learned = metrics.get("result", {}).get("learned")
    assert diagnose(metrics, config()) is None
    assert outcome(metrics, config()) == {"learned": learned, "cause": "", "message": "", "remedy": {}}


@pytest.mark.parametrize(
    ("right", "evidence", "expected"),
    [
        (55, {}, "reaches 50.0%, which is about the same on so many rows"),
        (45, {"recall_above_chance": 0.1}, "but unlike this model it never finds the other labels"),
        (65, {}, "reaches 50.0%."),
        (65, {"majority_accuracy": 0.6}, "reaches 60.0%, which is about the same"),  # another label in the eval rows
    ],
)
def test_verdict_agrees_with_what_the_engine_calls_learned(right: int, evidence: dict[str, Any], expected: str) -> None:
    metrics = {
        "eval": {"accuracy": right / 100, "confusion_matrix": [[right, 0], [100 - right, 0]]},
        "baseline": {"majority_accuracy": 0.5},
        "result": {"learned": True, "cause": "", "evidence": evidence},
    }
    assert expected in results.verdict(metrics)


@pytest.mark.parametrize("cause", CAUSES)
def test_page_says_the_cause_and_has_a_button_for_the_remedy(browser, member, cause) -> None:
    metrics = did_not_learn(cause)
    row(member, "idle", metrics=metrics, accuracy=0.5, config=config(model={"name": "bert-base-chinese"}))
    page = browser.get("/experiments/idle/", follow=True).content.decode()
    assert "The run finished, but the model did not learn." in page and "No better than the majority-class" in page
    assert ("/train/?like=idle&amp;remedy=1" in page) == (cause != "data")


def test_page_of_a_run_that_learned_is_as_it_was(browser, member) -> None:
    row(member, "learned", metrics=LEARNED, accuracy=0.8)
    row(member, "older", metrics=METRICS, accuracy=0.8)
    for name in ("learned", "older"):
        page = browser.get(f"/experiments/{name}/", follow=True).content.decode()
        assert "did not learn" not in page and 'id="notices"' not in page and "Right in 80.0%" in page


def test_notices_are_on_the_page_unless_it_says_the_same_in_other_words(browser, member) -> None:
    notices = [
        {"level": "warning", "code": "precision_fallback", "message": "Trained in fp32: bf16 gave <other> results."},
        {"level": "info", "code": "truncated", "message": "3 texts were truncated to 24 tokens."},
        {"level": "warning", "code": "not_learned", "message": "The model has not learned anything."},
    ]
    row(member, "noticed", metrics=METRICS | {"notices": notices}, accuracy=0.8)
    page = browser.get("/experiments/noticed/", follow=True).content.decode()
    assert (
        "bf16 gave &lt;other&gt; results." in page and "truncated to 24" not in page and "learned anything" not in page
    )


def test_viewer_is_told_without_a_button(client, member, viewer) -> None:
    from accounts.permissions import grant_access

    grant_access(row(member, "shown", metrics=did_not_learn("precision"), accuracy=0.5), to=viewer)
    client.force_login(viewer)
    page = client.get("/experiments/shown/", follow=True).content.decode()
    assert "did not learn" in page and "remedy=1" not in page


def test_api_has_the_result_with_its_remedy(api, member) -> None:
    values = {"accuracy": 0.5, "config": config(training={"learning_rate": 1.0})}
    row(member, "idle", metrics=did_not_learn("learning_rate_too_high"), learned=False, **values)
    row(member, "failed", metrics={})
    result = api(member).get("/api/experiments/idle").json()["result"]
    assert (result["learned"], result["cause"]) == (False, "learning_rate_too_high")
    assert result["remedy"] == {"training": {"learning_rate": 0.0005}} and "did not learn" in result["message"]
    assert api(member).get("/api/experiments/failed").json()["result"] is None


def test_list_is_filtered_by_what_learned(api, browser, member) -> None:
    row(member, "idle", metrics=did_not_learn("data"), accuracy=0.5, learned=False)
    row(member, "learned", metrics=LEARNED, accuracy=0.8, learned=True)
    row(member, "older", metrics=METRICS, accuracy=0.8)
    for value, names in (("false", ["idle"]), ("true", ["learned"]), ("", ["older", "learned", "idle"])):
        rows = api(member).get("/api/experiments/mine", {"learned": value}).json()["results"]
        assert [each["experiment"] for each in rows] == names
    assert rows[-1]["learned"] is False and rows[0]["learned"] is None
    assert api(member).get("/api/experiments/mine", {"learned": "no"}).status_code == 400
    assert browser.get("/experiments/?q=idle").content.decode().count("did not learn") == 2  # the badge and the filter
    assert browser.get("/experiments/?learned=true").content.decode().count("did not learn") == 1


def test_result_of_the_metrics_is_kept_in_the_row(member, monkeypatch) -> None:
    monkeypatch.setattr(services, "check_model", lambda experiment: None)
    experiment = row(member, "fresh", metrics={})
    services.record_result(experiment=experiment, metrics=did_not_learn("data"))
    assert Experiment.objects.get(learned=False) == experiment


def test_command_tells_it_in_lines_and_in_json(member) -> None:
    values = {"accuracy": 0.5, "learned": False, "config": config(training={"learning_rate": 1.0})}
    row(member, "idle", metrics=did_not_learn("learning_rate_too_high"), **values)

    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("experiments", *arguments, "--user", "member", stdout=out)
        return out.getvalue()

    lines = run("show", "idle").splitlines()
    assert "did not learn" in lines[1] and lines[2:4] == ["This may help:", "  training.learning_rate: 1 → 0.0005"]
    assert json.loads(run("show", "idle", "--json"))["result"]["learned"] is False
    assert "SUCCESS, did not learn" in run("list", "--learned", "false")


def test_sentences_of_a_verdict_have_no_spaces_between_them_in_chinese() -> None:
    with translation.override("zh-hant"):
        diagnosis = diagnose(did_not_learn("learning_rate_too_high"), {})
        assert diagnosis and "。" in results.verdict(METRICS) and "。" in diagnosis.message
        assert "。 " not in results.verdict(METRICS) + diagnosis.message
