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
from engine.config import DataSection
from engine.data.rows import load_rows
from experiments.models import Experiment, Measurement, ModelVersion
from experiments.registry import services
from inference import similar
from inference.recommendation import held_out, recommend
from inference.services import predictor
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


def test_models_are_ranked_by_what_they_get_right_on_rows_that_they_never_saw(good, bad, learnt, member):
    recommendation = recommend(user=member, data=learnt.version)
    assert [each.version for each in recommendation.models] == [good, bad]
    first, second = recommendation.models
    shares: Any = (second.accuracy, first.low, first.accuracy, first.high)
    assert shares[0] < shares[2] and shares[1] < shares[2] < shares[3]
    assert first.rows == second.rows > 20 and "it was not trained on" in first.reason


def test_measured_accuracy_is_that_of_the_model_on_just_these_rows(good, learnt, member, api):
    rows = held_out(learnt.version, 200)
    texts = rows.texts
    answers = api(member).post("/api/predict", {"texts": texts, "model": "good"}, format="json").json()
    right = sum(answer["label_name"] == label for answer, label in zip(answers, rows.labels, strict=True))
    assert recommend(user=member, data=learnt.version).models[0].right == right


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


def test_what_was_measured_is_kept_and_not_measured_again(good, learnt, member, django_assert_max_num_queries):
    first = recommend(user=member, data=learnt.version)
    assert Measurement.objects.count() == 1
    shutil.rmtree(good.folder)
    assert recommend(user=member, data=learnt.version).models == first.models
    other = recommend(user=member, data=learnt.version, sample=20).models[0]
    assert other.rows == 0 and "can't be loaded" in other.reason and Measurement.objects.count() == 1


def test_time_is_bounded_and_what_was_not_measured_is_told_and_not_kept(good, learnt, member):
    (measured,) = recommend(user=member, data=learnt.version, seconds=0).models
    assert measured.rows == 0 and measured.accuracy is None and "no time left" in measured.reason
    assert not Measurement.objects.exists()


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


def test_start_is_the_best_run_on_the_most_similar_data(learnt, member, stranger, tmp_path):
    frame = pl.read_parquet(learnt.version.path).select("text", "label")
    frame.head(200).write_csv(tmp_path / "part.csv")
    data = create_version(user=member, name="part", file=tmp_path / "part.csv", filename="part.csv")
    better = Experiment.objects.create(
        name="better", owner=member, version=learnt.version, dataset_name="tweets@1", base_model="b", accuracy=0.99,
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


def test_page_and_api_give_each_with_its_reason(good, learnt, member, client, api):
    client.force_login(member)
    page = client.get("/models/?dataset=tweets@1").content.decode()
    assert 'hx-get="/models/recommend/?dataset=tweets%401"' in page and "/models/good/" in page
    part = client.get("/models/recommend/?dataset=tweets@1", HTTP_HX_REQUEST="true").content.decode()
    assert "<html" not in part and "it was not trained on" in part and "best here" in part
    assert "<html" in client.get("/models/recommend/?dataset=tweets@1").content.decode()
    assert "Find a model for it" in client.get("/datasets/tweets/").content.decode()
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
