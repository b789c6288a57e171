"""Recommendation: models whose labels fit, ranked by what they get right on rows that they have not learnt from."""

import json
import shutil
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from datasets_app.models import Version
from datasets_app.services import create_version
from engine.config_sections import DataSection
from engine.data.rows import load_rows
from experiments.models import Experiment, Measurement, ModelVersion
from experiments.registry import services
from inference import similar
from inference.recommendation import held_out, recommend
from inference.services import predictor
from inference.tests.conftest import register_adapter
from training.models import Status, Task

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_predictor() -> None:
    predictor.cache_clear()


@pytest.fixture
def good(learnt: Experiment, member: Any) -> ModelVersion:
    return services.register(user=member, experiment=learnt, name="good")


@pytest.fixture
def bad(good: ModelVersion, learnt: Experiment, member: Any) -> ModelVersion:
    """The same model, whose head says the opposite."""
    version = services.register(user=member, experiment=learnt, name="bad")
    weights = version.folder / "adapter_model.safetensors"
    tensors = {n: -t if ".classifier." in n else t for n, t in load_file(weights).items()}
    weights.unlink()  # the run's file is the same one on the disk
    save_file(tensors, weights)
    return version


@pytest.mark.slow
def test_models_are_ranked_by_what_they_get_right_on_rows_that_they_never_saw(good, bad, learnt, member):
    recommendation = recommend(user=member, data=learnt.version)
    assert [each.version for each in recommendation.models] == [good, bad]
    first, second = recommendation.models
    shares: Any = (second.accuracy, first.low, first.accuracy, first.high)
    assert shares[0] < shares[2] and shares[1] < shares[2] < shares[3]
    assert first.rows == second.rows > 20 and "it was not trained on" in first.reason


@pytest.mark.slow
def test_version_with_an_alias_is_measured_beside_the_newest_one(good, learnt, member, client):
    services.set_alias(user=member, version=good, name="champion")
    newest = services.register(user=member, experiment=learnt, name="good")
    measured = {each.version for each in recommend(user=member, data=learnt.version).models}
    assert measured == {good, newest}
    client.force_login(member)
    page = client.get(f"/models/recommend/?dataset={learnt.version}").content.decode()
    assert "good@1</a></h3> <code>@champion</code>" in page


@pytest.mark.slow
def test_measured_accuracy_is_that_of_the_model_on_just_these_rows(good, learnt, member, api):
    rows = held_out(learnt.version, 200)
    texts = rows.texts
    answers = api(member).post("/api/predict", {"texts": texts, "model": "good"}, format="json").json()
    right = sum(answer["label_name"] == label for answer, label in zip(answers, rows.labels, strict=True))
    assert recommend(user=member, data=learnt.version).models[0].right == right


@pytest.mark.slow
def test_rows_that_a_model_has_learnt_from_are_left_out(good, learnt, member, tmp_path):
    """Data whose held-out rows are just those that the run has trained on, and a few others."""
    section = DataSection(text_column="text", label_column="label", eval_samples=60)
    rows = load_rows(learnt.version.path, section, 42)
    seen = pl.DataFrame({"text": rows.train.texts[:40], "label": [rows.labels[i] for i in rows.train.labels[:40]]})
    fresh = pl.DataFrame({"text": rows.eval.texts[:9], "label": [rows.labels[i] for i in rows.eval.labels[:9]]})
    both = pl.concat([seen, fresh]).with_columns(split=pl.lit("test"))
    train = seen.with_columns(pl.col("text") + " and more", split=pl.lit("train"))
    pl.concat([both, train]).write_csv(tmp_path / "seen.csv")
    data = create_version(user=member, name="seen", file=tmp_path / "seen.csv", filename="seen.csv", text_column="text",
                          label_column="label")  # fmt: skip
    (measured,) = recommend(user=member, data=data).models
    assert measured.rows == 9 and "40 rows of the sample were left out" in measured.reason


@pytest.mark.slow
def test_what_was_measured_is_kept_and_not_measured_again(good, learnt, member, django_assert_max_num_queries):
    first = recommend(user=member, data=learnt.version)
    assert Measurement.objects.count() == 1
    shutil.rmtree(good.folder)
    assert recommend(user=member, data=learnt.version).models == first.models
    other = recommend(user=member, data=learnt.version, sample=20).models[0]
    assert other.rows == 0 and "can't be loaded" in other.reason and Measurement.objects.count() == 1


@pytest.mark.medium
def test_time_is_bounded_and_what_was_not_measured_is_told_and_not_kept(good, learnt, member):
    (measured,) = recommend(user=member, data=learnt.version, seconds=0).models
    assert measured.rows == 0 and measured.accuracy is None and "no time left" in measured.reason
    assert not Measurement.objects.exists()


@pytest.mark.slow
def test_only_models_that_one_may_see_and_whose_labels_fit_are_measured(
    good, learnt, member, stranger, admin, tmp_path
):
    assert recommend(user=stranger, data=learnt.version).models == []
    assert len(recommend(user=admin, data=learnt.version).models) == 1
    pl.DataFrame(
        {"text": [f"text {i} of some length" for i in range(40)], "label": ["Positive", "negative"] * 20}
    ).write_csv(tmp_path / "two.csv")
    two = create_version(user=member, name="two", file=tmp_path / "two.csv", filename="two.csv")
    assert recommend(user=member, data=two).models == []


@pytest.mark.slow
def test_labels_fit_in_any_case_and_order(good, learnt, member, tmp_path):
    frame = pl.read_parquet(learnt.version.path).select("text", pl.col("label").str.to_uppercase()).reverse()
    frame.write_csv(tmp_path / "upper.csv")
    data = create_version(user=member, name="upper", file=tmp_path / "upper.csv", filename="upper.csv")
    (measured,) = recommend(user=member, data=data).models
    assert measured.version == good and measured.right > 0


@pytest.mark.medium
def test_start_is_the_best_run_on_the_most_similar_data(learnt, member, stranger, tmp_path):
    frame = pl.read_parquet(learnt.version.path).select("text", "label")
    frame.head(200).write_csv(tmp_path / "part.csv")
    data = create_version(user=member, name="part", file=tmp_path / "part.csv", filename="part.csv")
    better = Experiment.objects.create(
        name="better", owner=member, version=learnt.version, dataset_name="tweets@1", base_model="b", accuracy=0.99, score=0.99,
        config=learnt.config | {"lora": learnt.config["lora"] | {"r": 32}},
    )  # fmt: skip
    Task.objects.create(owner=member, experiment=better, status=Status.SUCCESS)
    start = recommend(user=member, data=data).start
    assert start is not None and start.experiment == better and start.config["data"]["dataset_name"] == "part@1"
    assert start.config["lora"]["r"] == 32 and "experiment_name" not in start.config and start.similarity > 0.9
    assert "300 against 200 rows" in start.reason
    assert recommend(user=stranger, data=data).start is None


def version(**facts: Any) -> Version:
    usual = {
        "labels": {"a": 1, "b": 1},
        "rows": 1000,
        "lengths": [{"from": 0, "to": 100, "rows": 1000}],
        "hash": "none",
    }
    return Version(**usual | facts)


@pytest.mark.parametrize(
    ("facts", "less"),
    [({"labels": {"a": 1, "c": 1}}, 0.4 * (0.5 - 0.5 / 3)), ({"labels": {"A": 1, "B": 1}}, 0), ({"rows": 100_000}, 0.2),
     ({"rows": 10_000}, 0.1), ({"lengths": [{"from": 0, "to": 800, "rows": 5}]}, 0.15), ({}, 0)],
)  # fmt: skip
def test_similarity_falls_by_labels_size_and_length(facts, less):
    assert similar.similarity(version(), version(**facts)) == pytest.approx(1 - less)


@pytest.mark.slow
def test_page_and_api_give_each_with_its_reason(good, learnt, member, client, api):
    client.force_login(member)
    page = client.get("/models/?dataset=tweets@1").content.decode()
    assert 'hx-get="/models/recommend/?dataset=tweets%401"' in page and "/models/good/" in page
    part = client.get("/models/recommend/?dataset=tweets@1", HTTP_HX_REQUEST="true").content.decode()
    assert "<html" not in part and "it was not trained on" in part and "best here" in part
    assert "<html" in client.get("/models/recommend/?dataset=tweets@1").content.decode()
    assert "Find a matching model" in client.get("/datasets/tweets/").content.decode()
    body = api(member).get("/api/models/recommend?dataset=tweets@1").json()
    assert body["models"][0]["name"] == "good" and body["models"][0]["rows"] > 20 and body["more"] == 0
    assert body["start"]["experiment"] == "small" and body["start"]["config"]["data"]["dataset_name"] == "tweets@1"
    assert api(member).get("/api/models/recommend?dataset=nothing").status_code == 404
    assert api(member).get("/api/models/recommend?dataset=tweets&sample=5").status_code == 400


def test_start_opens_the_form_with_that_configuration_on_these_data(learnt, member, client):
    client.force_login(member)
    form = client.get("/train/?like=small&dataset=tweets@1").context["form"]
    assert form["data.dataset_name"].value() == "tweets@1" and form["lora.r"].value() == "4"


def test_held_out_rows_are_the_same_each_time_and_in_random_order(learnt):
    first, again = held_out(learnt.version, 20), held_out(learnt.version, 20)
    assert first.texts == again.texts and np.array_equal(first.labels, again.labels)
    assert len(set(first.labels[:10])) > 1 and json.dumps(first.texts)


WORDS = {"late": "came two hours late", "loud": "was so loud that nobody slept", "dear": "cost far too much money"}


def store(member: Any, folder: Any, name: str, frame: pl.DataFrame, **options: Any) -> Version:
    frame.write_csv(folder / f"{name}.csv")
    return create_version(user=member, name=name, file=folder / f"{name}.csv", filename=f"{name}.csv", **options)


def several_labels() -> pl.DataFrame:
    chosen = [[name for bit, name in enumerate(WORDS) if n >> bit & 1] for n in range(96)]
    texts = [
        f"The thing of day {n} {' and '.join(map(WORDS.__getitem__, names)) or 'was fine'}."
        for n, names in enumerate(chosen)
    ]
    return pl.DataFrame({"text": texts, "labels": [";".join(names) for names in chosen]})


@pytest.mark.slow
def test_models_of_several_labels_are_measured_by_rows_with_all_labels_right(member, tmp_path):
    data = store(member, tmp_path, "several", several_labels(), kind="multi_label")
    labels = list(data.labels)
    task = "multi_label_classification"
    nothing = register_adapter(member, "nothing", labels, task=task, answers={"thresholds": [1.0] * 3})
    everything = register_adapter(member, "everything", labels, task=task, answers={"thresholds": [0.0] * 3})
    register_adapter(member, "single", labels)
    rows = held_out(data, 200)
    measured = {each.version: each for each in recommend(user=member, data=data).models}
    assert measured.keys() == {nothing, everything}
    assert measured[nothing].right == sum(not names for names in rows.labels)
    assert measured[everything].right == sum(len(names) == 3 for names in rows.labels)
    assert "All labels right in" in measured[nothing].reason and Measurement.objects.count() == 2


@pytest.mark.slow
def test_models_of_scores_are_ranked_by_their_error_and_only_those_that_read_the_same_texts(member, tmp_path, api):
    scores = [n % 5 + 0.5 * (n % 2) for n in range(96)]
    texts = [f"The thing of day {n} was fine {'very ' * (n % 7)}much." for n in range(96)]
    frame = pl.DataFrame({"text": texts, "score": scores})
    data = store(member, tmp_path, "stars", frame, kind="scores")
    near = register_adapter(
        member, "near", [], task="regression", answers={"score_mean": 2.2, "score_deviation": 0.001}
    )
    far = register_adapter(member, "far", [], task="regression", answers={"score_mean": 90.0, "score_deviation": 0.001})
    pairs = register_adapter(member, "pairs", [], task="regression", text_pairs=True)
    first, second = recommend(user=member, data=data).models
    assert (first.version, second.version) == (near, far) and first.accuracy is None and first.mae is not None
    rows = held_out(data, 200)
    assert first.mae == pytest.approx(sum(abs(2.2 - score) for score in rows.labels) / len(rows), abs=0.01)
    assert second.mae == pytest.approx(90 - sum(rows.labels) / len(rows), abs=0.01) and "Off by" in first.reason
    body = api(member).get("/api/models/recommend?dataset=stars").json()
    assert [(each["name"], each["accuracy"]) for each in body["models"]] == [("near", None), ("far", None)]
    assert body["models"][0]["mae"] == pytest.approx(first.mae) and body["start"] is None
    (near.folder / "adapter_model.safetensors").unlink()  # what was measured is not measured again
    assert recommend(user=member, data=data).models[0] == first
    two = frame.with_columns(other=pl.Series([f"Second text number {n}" for n in range(96)]))
    paired = store(member, tmp_path, "paired", two, kind="scores", text_column="text", text_pair_column="other")
    assert [each.version for each in recommend(user=member, data=paired).models] == [pairs]


@pytest.mark.slow
def test_page_of_recommendation_shows_errors_of_scores(member, tmp_path, client):
    frame = pl.DataFrame(
        {"text": [f"It was {'very ' * (n % 9)}{n} good" for n in range(60)], "score": [n / 7 for n in range(60)]}
    )
    store(member, tmp_path, "stars", frame, kind="scores")
    client.force_login(member)
    assert "No registered model is of this task type" in client.get("/models/recommend/?dataset=stars").content.decode()
    register_adapter(member, "stars-model", [], task="regression")
    page = client.get("/models/recommend/?dataset=stars").content.decode()
    assert "Off by" in page and "<meter" not in page and "Registered models of the same task type" in page


def test_labelled_spans_are_not_measured_and_nothing_fails(member, tmp_path):
    spans = [json.dumps([{"start": 0, "end": 3, "label": "animal"}])] * 40
    frame = pl.DataFrame({"text": [f"cat number {n} sat there" for n in range(40)], "spans": spans})
    data = store(member, tmp_path, "spans", frame, kind="spans", label_column="spans")
    recommendation = recommend(user=member, data=data)
    assert recommendation.models == [] and recommendation.start is None


@pytest.mark.medium
def test_start_is_a_run_of_the_same_task_type(learnt, member, tmp_path):
    """Numbers may be labels or scores: a run of the one is no start for the other."""
    data = store(member, tmp_path, "several", several_labels(), kind="multi_label")
    assert recommend(user=member, data=data).start is None
    config = {"task": "multi_label_classification", "data": {"dataset_name": "several@1"}}
    Experiment.objects.create(
        name="several-run", owner=member, version=data, dataset_name="several@1", base_model="b", config=config,
        task_type="multi_label_classification", score=0.7,
    )  # fmt: skip
    start = recommend(user=member, data=data).start
    assert start is not None and start.experiment.name == "several-run" and "Micro F1 0.700" in start.reason
