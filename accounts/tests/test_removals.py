"""What is deleted on a page is gone for everybody at once, comes back with one click, and is removed a little later."""

from typing import Any

import pytest

from accounts import removals
from accounts.models import Removal, User
from audit.models import Entry
from experiments.models import Alias, Experiment, ModelVersion, RegisteredModel
from testing.belongings import Belongings, belongings
from testing.removals import pass_time
from training.models import Status, Task
from web.errors import ConflictError

from .test_undo import offered

pytestmark = pytest.mark.django_db
DELETE = {
    "dataset": "/datasets/gone/delete/",
    "experiment": "/experiments/gone/delete/",
    "model": "/models/gone/delete/",
}
PAGE = {"dataset": "/datasets/gone/", "experiment": "/experiments/gone/", "model": "/models/gone/"}
API = {"dataset": "/api/datasets/gone", "experiment": "/api/experiments/gone", "model": "/api/models/gone"}
kinds = pytest.mark.parametrize("kind", list(DELETE))


@pytest.fixture
def mine(member: User) -> Belongings:
    """What the member has; no run uses the dataset, which could not be deleted otherwise."""
    owned = belongings(member, "gone")
    Experiment.objects.update(version=None)
    return owned


def exists(owned: Belongings, kind: str) -> bool:
    obj = getattr(owned, kind)
    return bool(type(obj)._base_manager.filter(pk=obj.pk).exists())


@kinds
def test_deleted_object_is_hidden_from_everybody_but_still_there(
    client: Any, api: Any, member: User, admin: User, mine: Belongings, kind: str
) -> None:
    client.force_login(member)
    assert client.post(DELETE[kind]).status_code == 302
    for person in (member, admin):
        client.force_login(person)
        assert client.get(PAGE[kind]).status_code == api(person).get(API[kind]).status_code == 404
        assert api(person).delete(API[kind]).status_code == 404
    assert exists(mine, kind)


@pytest.mark.medium
def test_run_of_a_deleted_experiment_is_hidden_too(client: Any, member: User, mine: Belongings) -> None:
    client.force_login(member)
    Task.objects.update(status=Status.FAILURE)
    assert f"/runs/{mine.task.pk}/" in client.get("/").content.decode()
    client.post(DELETE["experiment"])
    assert client.get(f"/runs/{mine.task.pk}/").status_code == 404
    assert f"/runs/{mine.task.pk}/" not in client.get("/").content.decode()


@kinds
def test_deletion_is_undone(client: Any, member: User, mine: Belongings, kind: str) -> None:
    client.force_login(member)
    page = client.post(DELETE[kind], follow=True)
    client.post("/undo/", {"token": offered(page)})
    assert client.get(PAGE[kind], follow=True).status_code == 200
    pass_time()
    assert exists(mine, kind) and not Removal.objects.exists()
    actions = Entry.objects.filter(object_id="gone").order_by("pk").values_list("action", flat=True)
    assert list(actions) == [f"{kind}.remove", f"{kind}.restore"]


@kinds
def test_worker_removes_it_for_good_and_then_it_is_too_late(
    client: Any, member: User, mine: Belongings, kind: str
) -> None:
    client.force_login(member)
    page = client.post(DELETE[kind], follow=True)
    removals.carry_out_due_removals()
    assert exists(mine, kind), "not before its time"
    pass_time()
    assert not exists(mine, kind) and not Removal.objects.exists()
    assert client.post("/undo/", {"token": offered(page)}).status_code == 409
    entry = Entry.objects.filter(action=f"{kind}.delete").get()
    assert entry.username == "member"


def test_crash_while_it_is_removed_loses_nothing(client: Any, member: User, mine: Belongings, monkeypatch: Any) -> None:
    client.force_login(member)
    client.post(DELETE["dataset"])
    with monkeypatch.context() as broken:
        broken.setattr("datasets_app.versions.deletion.record", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pass_time()
    assert exists(mine, "dataset") and Removal.objects.count() == 1
    pass_time()
    assert not exists(mine, "dataset")


def test_object_that_is_needed_meanwhile_comes_back(client: Any, member: User, mine: Belongings) -> None:
    client.force_login(member)
    client.post(DELETE["dataset"])
    Experiment.objects.update(version=mine.version)
    pass_time()
    assert client.get(PAGE["dataset"]).status_code == 200


def test_dataset_in_use_is_refused_at_once(client: Any, member: User) -> None:
    belongings(member, "gone")
    client.force_login(member)
    assert "is used by gone" in client.post(DELETE["dataset"], follow=True).content.decode()
    assert not Removal.objects.exists()


def test_run_in_progress_is_refused_at_once(client: Any, member: User, mine: Belongings) -> None:
    Task.objects.update(status=Status.STARTED)
    client.force_login(member)
    assert client.post(DELETE["experiment"]).status_code == 409 and not Removal.objects.exists()


def test_nothing_is_added_to_what_is_about_to_be_removed(client: Any, member: User, mine: Belongings) -> None:
    from datasets_app.versions.creation import find_own_dataset
    from experiments.registry.services import target_model

    client.force_login(member)
    client.post(DELETE["dataset"])
    client.post(DELETE["model"])
    for find in (find_own_dataset, target_model):
        with pytest.raises(ConflictError, match="a moment ago"):
            find(member, "gone")


def test_on_a_full_disk_it_is_removed_at_once(client: Any, member: User, mine: Belongings, settings: Any) -> None:
    settings.DISK_RESERVE = 2**60
    client.force_login(member)
    page = client.post(DELETE["model"], follow=True).content.decode()
    assert not exists(mine, "model") and 'action="/undo/"' not in page


@pytest.fixture
def second(member: User, mine: Belongings) -> ModelVersion:
    """A second version of the member's model, its champion."""
    facts = {"author": member, "experiment_name": "gone", "dataset_name": "gone@1", "base_model": "some/model"}
    version = ModelVersion.objects.create(model=mine.model, number=2, **facts)
    version.folder.mkdir()
    Alias.objects.create(model=mine.model, version=version, name="champion")
    RegisteredModel.objects.update(latest=version)
    return version


@pytest.mark.medium
def test_deleted_model_version_is_hidden_and_comes_back_with_its_alias(
    client: Any, api: Any, member: User, admin: User, second: ModelVersion
) -> None:
    client.force_login(member)
    page = client.post("/models/gone@2/delete/", follow=True)
    for person in (member, admin):
        assert [api(person).get(f"/api/models/gone{at}").status_code for at in ("@2", "@champion", "@1")] == [
            404,
            404,
            200,
        ]
        model = api(person).get("/api/models/gone").json()
        assert (model["version"], model["versions"], model["aliases"]) == (1, [1], {})
    assert client.post("/models/gone@1/delete/").status_code == 409  # the only one that is left
    client.post("/undo/", {"token": offered(page)})
    model = api(member).get("/api/models/gone").json()
    assert (model["version"], model["versions"], model["aliases"]) == (2, [2, 1], {"champion": 2})


@pytest.mark.parametrize("path", ["/models/gone@2/delete/", "/models/gone/delete/"])
def test_deleted_model_version_is_removed_later_or_with_its_model(
    client: Any, member: User, second: ModelVersion, path: str, django_capture_on_commit_callbacks: Any
) -> None:
    client.force_login(member)
    client.post("/models/gone@2/delete/")
    client.post(path)
    with django_capture_on_commit_callbacks(execute=True):
        pass_time()
    assert not ModelVersion.with_removed.filter(number=2).exists() and not second.folder.exists()
