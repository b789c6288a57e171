"""Wrong labels are found by a real search, reviewed on the page, and corrected in a new version."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from datasets_app import services
from datasets_app.models import DataTask, Version
from work.models import Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def flipped(member, file):
    """240 rows that a model can tell apart, 12 of them with the wrong label on purpose."""
    rng = np.random.default_rng(5)
    words = {"good": ["lovely", "warm", "kind", "happy", "bright"], "bad": ["awful", "cold", "rude", "grim", "broken"]}
    labels = ["good", "bad"] * 120
    texts = [f"the {t} on day {i} was {' and '.join(rng.choice(words[x], 2))}" for i, (t, x) in
             enumerate(zip(["room", "soup", "train", "film"] * 60, labels, strict=True))]  # fmt: skip
    wrong = sorted(int(i) for i in rng.choice(240, 12, replace=False))
    given = [{"good": "bad", "bad": "good"}[x] if i in wrong else x for i, x in enumerate(labels)]
    lines = [f"{t},{x}" for t, x in zip(texts, given, strict=True)]
    content = "\n".join(["text,label", *lines])
    version = services.create_version(user=member, name="moods", file=file(content), filename="moods.csv")
    return version, {i + 1 for i in wrong}


IMPORTED_BY_A_WORKER = """
import sys
import django
django.setup()
from datasets_app.jobs import warm_up
warm_up()
print("polars" in sys.modules, "torch" in sys.modules)
"""


@pytest.mark.process
def test_worker_for_data_does_without_the_libraries_of_this_search():
    imported = subprocess.check_output([sys.executable, "-c", IMPORTED_BY_A_WORKER], text=True)
    assert imported.split() == ["True", "False"]


@pytest.mark.slow
def test_wrong_labels_are_found_reviewed_and_corrected(client, member, flipped, run_worker, admin, api):
    version, wrong = flipped
    client.force_login(member)
    address = client.post("/datasets/moods/noise/search/", {"version": 1}).url
    assert client.get(address).status_code == 200
    run_worker()
    task = DataTask.objects.get()
    assert (task.status, task.stage) == (Status.SUCCESS, "done"), task.error
    suspects = list(version.suspects.all())
    assert {s.row for s in suspects[:12]} == wrong
    assert version.findings.get(code="label_noise").count >= 6

    page = client.get("/datasets/moods/noise/").content.decode()
    assert suspects[0].text in page and "<kbd>1</kbd>" in page
    for suspect in suspects[:12]:
        answer = {"version": 1, "rank": suspect.rank, "label": suspect.predicted}
        fragment = client.post("/datasets/moods/noise/decide/", answer, headers={"HX-Request": "true"})
        assert fragment.status_code == 200 and "<html" not in fragment.content.decode()
    assert "12 of" in fragment.content.decode()
    client.post("/datasets/moods/noise/apply/", {"version": 1})
    made = Version.objects.get(dataset=version.dataset, number=2)
    assert made.change == {"did": "relabel", "count": 12} and made.parent == version
    before, after = (pl.read_parquet(v.path).sort("row") for v in (version, made))
    assert set(before.filter(before["label"] != after["label"])["row"]) == wrong


@pytest.mark.medium
def test_decision_can_be_undone_and_row_dropped(client, member, flipped):
    version, _ = flipped
    suspect = version.suspects.create(
        rank=1, row=1, text="t", label="good", predicted="bad", given_probability=0.1, predicted_probability=0.9
    )
    client.force_login(member)
    for sent, decision in (({"drop": "1"}, ""), ({"undo": "1"}, None), ({"label": "good"}, "good")):
        client.post("/datasets/moods/noise/decide/", {"version": 1, "rank": 1, **sent})
        suspect.refresh_from_db()
        assert suspect.decision == decision
    assert client.post("/datasets/moods/noise/decide/", {"version": 1, "rank": 1, "label": "new"}).status_code == 400
    assert (
        "nothing to make" in client.post("/datasets/moods/noise/apply/", {"version": 1}, follow=True).content.decode()
    )


def make_suspects(version, *labels):
    """Add a suspect per pair of current and predicted label."""
    for rank, (label, predicted) in enumerate(labels, 1):
        version.suspects.create(
            rank=rank, row=rank, text=f"t{rank}", label=label, predicted=predicted,
            given_probability=0.1, predicted_probability=0.9,
        )  # fmt: skip


def test_key_means_the_same_label_at_every_suspect(client, member, stored):
    DataTask.objects.create(owner=member, kind="noise", name="moods", version=stored, status="SUCCESS", result={})
    make_suspects(stored, ("good", "bad"), ("bad", "good"))
    client.force_login(member)
    for after, accepted, kept in ((0, "bad", "good"), (1, "good", "bad")):
        page = client.get(f"/datasets/moods/noise/?after={after}").content.decode()
        for label, key in (("bad", "1"), ("good", "2"), (accepted, "Enter"), (kept, "k")):
            assert f'value="{label}" data-press="{key}"' in page


@pytest.mark.medium
def test_corrected_version_is_opened_and_is_made_only_once(client, member, stored):
    row = pl.read_parquet(stored.path).row(0, named=True)
    other = {"good": "bad", "bad": "good"}[row["label"]]
    DataTask.objects.create(owner=member, kind="noise", name="moods", version=stored, status="SUCCESS", result={})
    make_suspects(stored, (row["label"], other))
    client.force_login(member)
    client.post("/datasets/moods/noise/decide/", {"version": 1, "rank": 1, "label": other})
    assert client.post("/datasets/moods/noise/apply/", {"version": 1}).url == "/datasets/moods/"
    assert "/datasets/moods/noise/?version=1#gain" in client.get("/datasets/moods/").content.decode()
    assert (
        "Open version 2, made from these decisions" in client.get("/datasets/moods/noise/?version=1").content.decode()
    )
    again = client.post("/datasets/moods/noise/apply/", {"version": 1}, follow=True).content.decode()
    assert "Version 2 has exactly these rows already." in again and stored.dataset.versions.count() == 2


@pytest.mark.medium
def test_improvement_is_shown_compared_with_the_earlier_run(client, member, flipped):
    version, _ = flipped
    version.suspects.create(
        rank=1, row=1, text="t", label=pl.read_parquet(version.path)["label"][0], predicted="bad",
        given_probability=0.1, predicted_probability=0.9, decision="",
    )  # fmt: skip
    client.force_login(member)
    client.post("/datasets/moods/noise/apply/", {"version": 1})
    made = Version.objects.get(dataset=version.dataset, number=2)
    fields = {"owner": member, "base_model": "m", "macro_f1": 0.8}
    version.experiments.create(name="first", dataset_name="moods@1", accuracy=0.80, **fields)
    page = client.get("/datasets/moods/noise/?version=1").content.decode()
    assert "Run the configuration of first again" in page
    after = made.experiments.create(name="first-2", dataset_name="moods@2", accuracy=0.85, **fields)
    from training.models import Task

    Task.objects.create(owner=member, experiment=after, status=Status.SUCCESS)
    assert "5.0 points better" in client.get("/datasets/moods/noise/?version=1").content.decode()
