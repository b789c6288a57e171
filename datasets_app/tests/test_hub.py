"""A data set of the hub becomes a version with its pinned revision; a hub that is away is reported."""

import json
from pathlib import Path

import polars as pl
import pytest
from django.core.management import CommandError, call_command

from datasets_app import services
from datasets_app.models import Dataset, DataTask
from datasets_app.reading import hub
from engine.errors import DiskFullError
from web.errors import InvalidError

pytestmark = pytest.mark.django_db
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Make the hub unreachable, as on a machine without a connection."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture
def shelf(tmp_path):
    """Return a data set as the hub stores it: a file for each split, labels as numbers, their names in the card."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    for split, start in (("train", 0), ("test", 40)):
        lines = [{"text": f"the room number {i} of the house", "label": i % 3 - 1} for i in range(start, start + 40)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n          '0': bad\n          '1': good\n---\n"
    )
    return folder


def test_offline_is_reported_and_nothing_is_queued(client, member):
    client.force_login(member)
    page = client.post("/datasets/new/hub/", {"hub": "somebody/reviews", "name": "reviews"})
    assert page.status_code == 400
    assert "can&#x27;t be reached from here" in page.content.decode() and "upload it" in page.content.decode()
    assert not DataTask.objects.exists()


def test_offline_is_reported_by_api_and_command(api, member):
    answer = api(member).post("/api/datasets", {"name": "reviews", "hub": "somebody/reviews"}, format="multipart")
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "hub"
    with pytest.raises(CommandError, match="can't be reached"):
        call_command("datasets", "import", "reviews", "--hub", "somebody/reviews", "--user", member.username)


def test_invalid_id_is_refused():
    with pytest.raises(InvalidError, match="owner/name"):
        hub.pin_revision("../../no such place")


@pytest.mark.parametrize("folder", ["datasets_app/tests", ".", "/etc"])
def test_folder_of_this_machine_is_no_data_set_of_the_hub(folder, settings, monkeypatch):
    monkeypatch.chdir(settings.BASE_DIR)
    with pytest.raises(InvalidError, match="no data set of the hub"):
        hub.pin_revision(folder)


@pytest.mark.slow
def test_splits_names_of_labels_and_revision_are_kept(member, shelf):
    version = services.insert(hub.prepare_dataset(user=member, name="reviews", hub=str(shelf), revision=COMMIT))
    assert set(version.labels) == {"bad", "good"}  # rows of -1 have no label
    assert version.source["revision"] == COMMIT and version.source["hub"] == str(shelf)
    assert set(pl.read_parquet(version.path)["split"].unique()) == {"train", "test"}
    assert version.source["skipped"] == 80 - version.rows > 0


@pytest.mark.medium
def test_cached_file_is_whole_or_not_there(shelf, tmp_path, monkeypatch):
    target = tmp_path / "cache" / "reviews.parquet"

    def full(frame: pl.DataFrame, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pl.DataFrame, "write_parquet", full)
        with pytest.raises(DiskFullError, match="the disk is full"):
            hub.fetch(str(shelf), None, None, target)
    assert list(target.parent.iterdir()) == []
    hub.fetch(str(shelf), None, None, target)
    assert list(target.parent.iterdir()) == [target] and pl.read_parquet(target).height == 80


def test_data_set_that_cannot_be_read_leaves_nothing(member, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidError, match="could not be read from the hub"):
        hub.prepare_dataset(user=member, name="reviews", hub=str(tmp_path / "empty"), revision=COMMIT)
    assert not Dataset.objects.exists()
