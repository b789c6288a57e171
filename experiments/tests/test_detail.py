"""One experiment: its page, its files, its end."""

import io
import os
import zipfile
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from accounts.permissions import grant_access
from audit.models import Entry
from experiments import results, services
from experiments.models import Experiment
from testing.experiments import METRICS, row
from testing.removals import pass_time
from training.models import Status, Task
from web.errors import ConflictError

pytestmark = pytest.mark.django_db


def test_detail_says_what_was_reached_beside_the_baselines(browser, finished):
    page = browser.get("/experiments/mine-too/", follow=True)
    content = page.content.decode()
    assert "Right in 80.0%" in content and "50.0%" in content and "70.0%" in content
    assert [chart["id"] for chart in page.context["charts"]] == ["loss", "metrics"]
    errors = browser.get("/experiments/mine-too/?tab=errors", follow=True).content.decode()
    assert "<script>alert" not in errors and "&lt;script&gt;alert" in errors


def test_archive_holds_every_file_and_nothing_else(browser, finished):
    answer = browser.get("/experiments/mine-too/all.zip")
    packed = zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content)))
    assert packed.namelist() == ["mine-too/config.yaml"]
    assert packed.read("mine-too/config.yaml") == (finished.folder / "config.yaml").read_bytes()
    assert Entry.objects.filter(action="experiment.download").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../mine-too/config.yaml",
        "%2e%2e/x",
        "..%2fx",
        "%252e%252e/x",
        "/etc/passwd",
        "logs.txt/../config.yaml",
    ],
)
def test_only_listed_files_can_be_had(browser, api, member, finished, path):
    (finished.folder / "link").symlink_to("/etc/passwd")
    for response in (
        browser.get(f"/experiments/mine-too/files/{path}"),
        browser.get("/experiments/mine-too/files/link"),
    ):
        assert response.status_code == 404
    assert api(member).get(f"/api/experiments/mine-too/files/{path}").status_code == 404


def test_name_with_a_nul_is_refused(browser, api, member, finished):
    for response in (
        browser.get("/experiments/mine-too/files/a%00b"),
        api(member).get("/api/experiments/mine-too/files/a%00b"),
    ):
        assert response.status_code == 400


def test_file_of_the_api_is_the_file(api, member, finished):
    answer = api(member).get("/api/experiments/mine-too/files/config.yaml")
    assert b"".join(answer.streaming_content) == (finished.folder / "config.yaml").read_bytes()


def test_detail_of_the_api_has_the_shape_of_the_specification(api, member, finished):
    answer = api(member).get("/api/experiments/mine-too").json()
    assert answer.keys() == {
        "experiment", "task_id", "status", "owner", "dataset", "dataset_hash", "base_model", "config", "metrics", "result",
        "files", "created_at", "task_type", "score", "score_name", "tags", "note",
    }  # fmt: skip
    assert answer["files"] == [{"path": "config.yaml", "size": (finished.folder / "config.yaml").stat().st_size}]
    assert (answer["status"], answer["owner"], answer["dataset"]) == ("SUCCESS", "member", "mine-too@1")


@pytest.mark.django_db(transaction=True)
def test_deletion_removes_row_run_and_files(browser, finished):
    folder = finished.folder
    assert browser.post("/experiments/mine-too/delete/").status_code == 302
    pass_time()
    assert os.listdir(folder.parent) == []
    assert not Experiment.objects.exists() and not Task.objects.exists()
    assert Entry.objects.filter(action="experiment.delete").exists()


def test_running_experiment_is_not_deleted(api, member, finished):
    Task.objects.update(status=Status.STARTED, started_at=timezone.now())
    answer = api(member).delete("/api/experiments/mine-too")
    assert answer.status_code == 409 and finished.folder.exists() and Experiment.objects.exists()


def test_folder_that_cannot_be_removed_keeps_the_experiment(api, member, finished, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    answer = api(member).delete("/api/experiments/mine-too")
    assert answer.status_code == 409 and "Permission denied" in answer.json()["title"]
    assert Experiment.objects.filter(name="mine-too").exists() and finished.folder.exists()


@pytest.mark.parametrize(
    ("accuracy", "baseline", "expected"),
    [
        (
            0.8,
            {"majority_accuracy": 0.5},
            "The majority-class baseline (always the most frequent label) reaches 50.0%",
        ),
        (0.5, {"majority_accuracy": 0.5}, "No better than the majority-class baseline"),
        (0.8, {"linear_accuracy": 0.5}, "clearly less"),
        (0.5, {"linear_accuracy": 0.8}, "clearly more"),
        (0.7, {"linear_accuracy": 0.72}, "about the same"),
        (0.8, {}, "80.0% of 100 held-out rows, give or take 7.8 points."),
        (None, {}, ""),
    ],
)
def test_verdict_says_what_the_result_is_worth(accuracy, baseline, expected):
    metrics = {"eval": {"accuracy": accuracy, "confusion_matrix": [[40, 10], [10, 40]]}, "baseline": baseline}
    assert expected in results.verdict(metrics) and (expected or results.verdict(metrics) == "")


@pytest.mark.parametrize(
    ("status", "expected"),
    [("PENDING", "is queued"), ("STARTED", "is in progress"), ("FAILURE", "This run failed"), ("CANCELLED", "was cancelled")],
)  # fmt: skip
def test_run_without_a_result_says_how_it_stands(browser, member, status, expected):
    experiment = row(member, "without")
    error = {"code": "oom", "message": "Memory ran out.", "kept": "All until step 5.", "next": "Take a smaller batch."}
    Task.objects.update(status=status, error=error if status == "FAILURE" else None)
    content = browser.get(f"/runs/{experiment.task.pk}/").content.decode()
    assert (
        expected in content
        and "plain PEFT" not in browser.get(f"/runs/{experiment.task.pk}/?tab=files").content.decode()
    )
    assert ("Take a smaller batch." in content) == (status == "FAILURE")
    access = browser.get(f"/runs/{experiment.task.pk}/?tab=access").content.decode()
    assert ("Delete this run" in access) == (status in ("FAILURE", "CANCELLED"))


def test_code_to_copy_names_the_labels_and_is_a_program(browser, finished):
    Experiment.objects.update(metrics={**METRICS, "labels": ['"quoted"', "負面"]})
    code = browser.get("/experiments/mine-too/?tab=files", follow=True).context["code"]
    assert 'labels = ["\\"quoted\\"", "負面"]' in code and "mine-too/artifacts/final_model" in code
    compile(code, "copied", "exec")


def test_viewer_reads_what_is_shared_but_neither_deletes_nor_sees_the_button(client, api, viewer, stranger, finished):
    assert api(stranger).get("/api/experiments/mine-too").status_code == 404
    assert api(stranger).delete("/api/experiments/mine-too").status_code == 404
    grant_access(finished, to=viewer)
    client.force_login(viewer)
    assert b"Delete this run" not in client.get("/experiments/mine-too/?tab=access", follow=True).content
    assert client.post("/experiments/mine-too/delete/").status_code == 403
    assert api(viewer).delete("/api/experiments/mine-too").status_code == 403
    assert api(viewer).get("/api/experiments/mine-too").json()["experiment"] == "mine-too"
    assert finished.folder.exists()


@pytest.mark.django_db(transaction=True)
def test_whom_the_owner_lets_manage_may_delete(api, stranger, finished):
    grant_access(finished, to=stranger, manage=True)
    assert api(stranger).delete("/api/experiments/mine-too").status_code == 204
    assert not finished.folder.exists()


def test_run_that_was_resumed_since_the_page_was_read_is_not_deleted(member, finished):
    assert finished.task.finished
    Task.objects.update(status=Status.PENDING)
    with pytest.raises(ConflictError):
        services.delete(user=member, experiment=finished)
    assert finished.folder.exists()


def refuse(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Permission denied")


def failing(*_: Any, **__: Any) -> None:
    raise DatabaseError("the commit was refused")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", ["record", "remove_on_commit", "Experiment.delete"])
def test_deletion_that_fails_leaves_rows_and_files(member, finished, monkeypatch, step):
    monkeypatch.setattr(f"experiments.services.{step}", failing)
    with pytest.raises(DatabaseError):
        services.delete(user=member, experiment=finished)
    assert Experiment.objects.filter(name="mine-too", task__isnull=False).exists()
    assert (finished.folder / "config.yaml").exists() and os.listdir(finished.folder.parent) == ["mine-too"]


@pytest.mark.django_db(transaction=True)
def test_deletion_inside_a_transaction_that_is_rolled_back_leaves_rows_and_files(member, finished):
    key, folder = finished.pk, finished.folder
    with pytest.raises(DatabaseError), transaction.atomic():
        services.delete(user=member, experiment=finished)
        failing()
    assert Experiment.objects.filter(pk=key).exists() and (folder / "config.yaml").exists()


@pytest.mark.django_db(transaction=True)
def test_folder_that_the_system_will_not_rename_is_told_and_stays_whole(member, finished, monkeypatch, caplog):
    monkeypatch.setattr("pathlib.Path.rename", refuse)
    assert services.delete(user=member, experiment=finished) != []
    assert (finished.folder / "config.yaml").exists() and "Permission denied" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_files_that_the_system_keeps_are_logged(browser, finished, monkeypatch, caplog):
    monkeypatch.setattr("os.unlink", refuse)
    browser.post("/experiments/mine-too/delete/")
    pass_time()
    assert "config.yaml" in caplog.text
    assert not Experiment.objects.exists() and not finished.folder.exists()


def test_archive_leaves_out_drafts_and_links(browser, finished):
    (finished.folder / ".draft").write_text("half")
    (finished.folder / "link").symlink_to("/etc/passwd")
    final = finished.final_model
    final.mkdir(parents=True)
    (final / "adapter_config.json").write_bytes(b"{}")
    answer = browser.get("/experiments/mine-too/all.zip")
    packed = zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content)))
    assert packed.namelist() == ["mine-too/artifacts/final_model/adapter_config.json", "mine-too/config.yaml"]


def test_verdict_is_modest_about_a_perfect_score_on_few_rows():
    sentence = results.verdict({"eval": {"accuracy": 1.0, "confusion_matrix": [[12, 0], [0, 12]]}})
    assert "100.0% of 24 held-out rows, give or take 6.9 points" in sentence


@pytest.mark.parametrize(
    ("data", "sentences"),
    [
        ({"skipped_rows": 3, "skipped_by_reason": {"no_text": 1, "unknown_split": 2}},
         ["1 row without text was left out.", "2 rows with an unknown split name were left out."]),
        ({"skipped_rows": 2}, ["2 rows without text or label were left out."]),  # a run before reasons were counted
        ({"skipped_rows": 0, "skipped_by_reason": {}}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_page_tells_why_rows_were_left_out(browser, member, data, sentences):
    row(member, "skipping", metrics=METRICS | {"data": data}, accuracy=0.8)
    assert results.skipped_sentences(data) == sentences
    content = browser.get("/experiments/skipping/", follow=True).content.decode()
    assert all(sentence in content for sentence in sentences) and ("left out." in content) == bool(sentences)


def test_matrix_of_many_labels_is_folded_behind_the_most_frequent_confusions(browser, finished):
    labels = [f"一個相當長的標籤名稱{i}" for i in range(30)]
    counts = [[9 if i == j else 0 for j in range(30)] for i in range(30)]
    counts[3][7], counts[5][0] = 6, 2
    finished.metrics = METRICS | {"labels": labels, "eval": METRICS["eval"] | {"confusion_matrix": counts}}
    finished.save()
    page = browser.get("/experiments/mine-too/?tab=errors", follow=True)
    assert [(pair["label"], pair["predicted"], pair["count"]) for pair in page.context["confusions"]] == [
        (labels[3], labels[7], 6),
        (labels[5], labels[0], 2),
    ]
    assert page.context["confusions"][0]["share"] == 40
    content = page.content.decode()
    assert '<details class="fold"><summary>30 labels' in content
    assert f'title="{labels[7]}">8</span>' in content


def test_wrong_answers_come_first_among_the_hardest_rows(finished):
    rows = [{"text": "a", "label": "x", "predicted": "x"}, {"text": "b", "label": "x", "predicted": "y"}]
    assert [row["text"] for row in results.worst_rows({"worst": rows})] == ["b", "a"]
