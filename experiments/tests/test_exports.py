"""Models in other formats: asked for on the page or by the API, written by a worker, compared, downloaded, removed."""

import io
import json
import zipfile
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db.models.functions import Now
from django.utils.html import escape

from accounts.permissions import grant_access
from accounts.quotas import MIB, usage_of
from audit.models import Entry
from datasets_app.models import DataTask
from engine.export import packages
from experiments.models import Experiment, ModelExport, ModelVersion
from experiments.registry import card, export_jobs, exports, services
from testing.exports import store_export
from testing.programs import run_program
from web.errors import ConflictError, InvalidError
from work.lease import Heartbeat
from work.models import Status
from work.paths import exports_dir
from work.reconciler import take_back_abandoned
from work.running import StopSignal, TaskStoppedError

pytestmark = pytest.mark.django_db(transaction=True)
FORMAT_ADDRESS = "/api/models/mood/exports/safetensors"


@pytest.fixture
def registered(member: Any, learnt: Experiment) -> ModelVersion:
    return services.register(user=member, experiment=learnt, name="mood", summary="Tells the mood of a tweet.")


def request(member: Any, version: ModelVersion, format: str = "safetensors") -> ModelExport:
    export = exports.request_export(user=member, version=version, format=format).export
    assert export is not None
    return export


def files_left() -> list[str]:
    return sorted(path.name for path in exports_dir().iterdir())


@pytest.fixture
def exported(member: Any, registered: ModelVersion) -> ModelExport:
    return store_export(registered, member)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["safetensors", "onnx", "onnx-int8"])
def test_worker_exports_a_model_that_answers_as_the_served_one(
    format, registered, learnt, member, api, browser, run_worker, tmp_path, monkeypatch
):
    client = api(member)
    answer = client.post("/api/models/mood@1/exports", {"format": format}, format="json")
    assert answer.status_code == 202 and answer.json()["status"] == "PENDING"
    assert answer.json()["url"] == f"/api/models/mood@1/exports/{format}"
    run_worker()
    state = client.get(answer.json()["url"]).json()
    assert state["status"] == "SUCCESS", state["error"]
    result = state["result"]
    assert result["compared_on"] == "tweets@1" and result["texts"] == learnt.metrics["data"]["eval_rows"]
    if format == "onnx-int8":
        assert result["equal_answers"] > 0.9 and result["largest_change"] < 0.3
    else:
        assert result["equal_answers"] == 1.0 and result["largest_change"] < 1e-4

    content = b"".join(client.get(f"{state['url']}/archive").streaming_content)
    assert len(content) == state["size"]
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == f"mood-1-{format}" and json.loads((folder / "export.json").read_text())["format"] == format
    served = client.post("/api/predict", {"text": "a fine day", "model": "mood"}, format="json").json()
    monkeypatch.chdir(folder)
    predict = run_program((folder / "README.md").read_text().split("```python\n")[1].split("```")[0])
    _label, probabilities = predict("a fine day")
    change = 2 * result["largest_change"] + 1e-3
    assert probabilities == pytest.approx(served["probabilities"], abs=change)

    export = ModelExport.objects.get()
    assert files_left() == [export.path.name]
    page = browser.get("/models/mood/").content.decode()
    assert (
        escape(exports.describe_comparison(result)) in page and "hx-trigger" not in page.split('id="exports"')[1][:200]
    )
    assert f"**{format}:** {exports.describe_comparison(result)}" in card.readme(registered)
    (shown,) = client.get("/api/models/mood").json()["chosen"]["exports"]
    assert (shown["format"], shown["result"]) == (format, result)


@pytest.mark.medium
def test_same_export_is_made_once(registered, member, api):
    first, again = (
        api(member).post("/api/models/mood/exports", {"format": "onnx"}, format="json").json() for _ in range(2)
    )
    assert first["task_id"] == again["task_id"] and ModelExport.objects.count() == 1
    assert Entry.objects.filter(action="model.export").count() == 1


def test_export_never_holds_the_worker_that_checks_data(registered, member):
    queues = {queue.queue_name for queue in (request(member, registered), DataTask())}
    assert queues == {"data", "exports"} <= settings.RQ_QUEUES.keys()


@pytest.mark.medium
def test_failed_export_starts_again_and_page_says_why_it_failed(registered, member, browser):
    export = request(member, registered)
    error = {"code": "x", "message": "The base model is gone.", "kept": "Nothing was stored.", "next": "Export again."}
    ModelExport.objects.update(status=Status.FAILURE, error=error)
    assert "The base model is gone." in browser.get("/models/mood/").content.decode()
    answer = browser.post("/models/mood@1/exports/", {"format": "safetensors"})
    assert answer.status_code == 302 and answer["Location"] == "/models/mood/?version=1#exports"
    export.refresh_from_db()
    assert export.status == Status.PENDING and export.error is None


@pytest.mark.medium
def test_export_without_its_packages_says_which_are_missing(registered, member, api, browser, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    answer = api(member).post("/api/models/mood/exports", {"format": "onnx"}, format="json")
    assert answer.status_code == 409 and "pip install -r requirements-export.txt" in answer.json()["detail"]
    assert answer.json()["errors"][0]["field"] == "format" and not ModelExport.objects.exists()
    states = {state["format"]: state for state in api(member).get("/api/models/mood/exports").json()}
    assert states["onnx"]["missing_packages"] == ["onnx", "onnxruntime", "onnxscript"]
    assert states["safetensors"]["install"] == "" and states["safetensors"]["status"] is None
    page = browser.get("/models/mood/").content.decode()
    assert page.count("pip install -r requirements-export.txt") == 2 and 'value="safetensors"' in page


@pytest.mark.medium
def test_page_polls_while_an_export_is_on_its_way(registered, member, browser, api):
    export = request(member, registered)
    answer = api(member).get(f"{FORMAT_ADDRESS}/archive")
    assert answer.status_code == 404 and "Wait until it is done" in answer.json()["detail"]
    assert 'hx-get="/models/mood@1/exports/"' in browser.get("/models/mood/").content.decode()
    ModelExport.objects.update(status=Status.STARTED, stage="comparing", step=30, total_steps=120)
    part = browser.get("/models/mood@1/exports/", headers={"HX-Request": "true"})
    assert part.status_code == 200 and b'value="25"' in part.content and b"comparing answers" in part.content
    export.refresh_from_db()
    assert browser.post("/models/mood@1/exports/safetensors/cancel/").status_code == 302
    ModelExport.objects.update(status=Status.CANCELLED)
    assert browser.get("/models/mood@1/exports/", headers={"HX-Request": "true"}).status_code == 286
    assert browser.get("/models/mood@1/exports/").status_code == 302


@pytest.mark.medium
def test_whoever_sees_a_model_exports_and_downloads_it_but_does_not_delete_another_ones_export(
    exported, member, stranger, viewer, api, client
):
    for person in (stranger, viewer):
        assert api(person).get(FORMAT_ADDRESS).status_code == 404
        grant_access(exported.version.model, to=person)
        assert api(person).get(f"{FORMAT_ADDRESS}/archive").status_code == 200
        assert api(person).delete(FORMAT_ADDRESS).status_code == 403
    client.force_login(viewer)
    assert "Not exported yet." in client.get("/models/mood/").content.decode()
    body = {"format": "onnx"}
    assert api(viewer).post("/api/models/mood/exports", body, format="json").status_code == 403
    assert api(stranger).post("/api/models/mood/exports", body, format="json").status_code == 202
    assert api(stranger).post("/api/models/mood/exports/onnx/cancel").json()["status"] == "CANCELLED"
    assert api(member).delete("/api/models/mood/exports/onnx").status_code == 204  # manages the model
    assert [entry.username for entry in Entry.objects.filter(action="model.download")] == ["viewer", "stranger"]


def test_export_counts_for_the_storage_of_who_asked_and_goes_with_its_model(exported, member, registered):
    assert usage_of(member, "storage") >= 5 and files_left() == [exported.path.name]
    services.delete(user=member, model=registered.model)
    assert files_left() == [] and not ModelExport.objects.exists()


def test_deleted_export_takes_its_file_with_it(exported, member, api):
    assert api(member).delete(FORMAT_ADDRESS).status_code == 204
    assert files_left() == [] and api(member).get(FORMAT_ADDRESS).status_code == 404
    assert Entry.objects.filter(action="model.export_delete").count() == 1


def test_export_whose_file_is_gone_can_be_made_again(exported, member, registered, api):
    """As after a backup was restored, which leaves exports out."""
    exported.path.unlink()
    assert api(member).get("/api/models/mood").json()["chosen"]["exports"] == []
    assert request(member, registered).status == Status.PENDING


@pytest.mark.slow
def test_export_that_exceeds_the_quota_is_refused_and_leaves_nothing(registered, member, api, run_worker):
    export = request(member, registered)
    member.storage_limit_mb = -(-usage_of(member, "storage") // MIB) + 1
    member.save()
    run_worker()
    export.refresh_from_db()
    error = export.error or {}
    assert export.status == Status.FAILURE and error["code"] == "quota_reached"
    assert "Nothing was stored" in error["kept"] and files_left() == []


def test_unknown_format_is_refused(registered, member, api):
    with pytest.raises(InvalidError, match="safetensors, onnx, onnx-int8"):
        exports.request_export(user=member, version=registered, format="gguf")
    assert api(member).post("/api/models/mood/exports", {"format": "gguf"}, format="json").status_code == 400
    with pytest.raises(ConflictError, match="not ended"):
        exports.delete_export(user=member, export=request(member, registered))


def started(member: Any, registered: ModelVersion) -> ModelExport:
    """Return an export that a worker has begun, with what it has written so far."""
    export = request(member, registered)
    export.move(Status.STARTED, frm=[Status.PENDING], lease_until=Now() + timedelta(seconds=60))
    exports_dir().mkdir(parents=True, exist_ok=True)
    for name in (f".draft-{'0' * 32}-{export.folder.name}", export.folder.name):
        (exports_dir() / name).mkdir()
        (exports_dir() / name / "model.safetensors").write_bytes(b"half")
    (exports_dir() / f".draft-{'1' * 32}-{export.path.name}").write_bytes(b"half")
    return export


def test_export_whose_worker_was_killed_leaves_nothing_and_starts_again(registered, member):
    export = started(member, registered)
    other = exports_dir() / f".draft-{'2' * 32}-another.zip"
    other.write_bytes(b"of another export")
    ModelExport.objects.update(lease_until=Now() - timedelta(seconds=60))
    assert take_back_abandoned() == 1
    export.refresh_from_db()
    assert export.status == Status.PENDING and files_left() == [other.name]


def test_cancelled_export_stops_and_leaves_nothing(registered, member):
    export = started(member, registered)
    exports.cancel_export(user=member, export=export)
    heartbeat = Heartbeat(export, on_orphaned=lambda: None)
    with pytest.raises(TaskStoppedError):
        export_jobs.ExportRunner().perform(export, StopSignal(export, heartbeat))
    export.move(Status.CANCELLED, frm=[Status.STARTED])
    assert files_left() == []


def test_answers_are_compared_on_random_texts_where_the_rows_are_gone(registered, learnt):
    held_out = export_jobs.compared_texts(registered).texts
    assert held_out is not None and len(held_out) == learnt.metrics["data"]["eval_rows"]
    ModelVersion.objects.update(dataset_version=None)
    assert export_jobs.compared_texts(ModelVersion.objects.get()).texts is None
    result = {"texts": 200, "equal_answers": None, "largest_change": 1e-6, "compared_on": ""}
    sentence = "Scores of 200 texts changed by at most 0.0001 standard deviations. Compared on random texts"
    assert exports.describe_comparison(result).startswith(sentence)
    result = {"texts": 30_000, "equal_answers": 0.99998, "largest_change": 0.08341, "compared_on": "tweets@1"}
    sentence = "99.99% of 30,000 texts get the same answer; no probability changed by more than 0.0835."
    assert exports.describe_comparison(result) == f"{sentence} Compared on held-out rows of tweets@1."
