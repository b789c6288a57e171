"""What has an owner can be shared, given away and handed over; nothing else decides who sees it."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group
from guardian.models import GroupObjectPermission, UserObjectPermission

from accounts import services, sharing
from accounts.models import User
from accounts.permissions import OnlyOwnerError, visible
from audit.models import Entry
from datasets_app.models import Dataset
from experiments.models import Experiment
from testing.belongings import Belongings, belongings
from testing.people import make_user
from training.models import Task
from web.errors import InvalidError, NotAllowedError


@pytest.fixture
def owned(member: User) -> Belongings:
    return belongings(member, "mine")


def sees(user: User, *, manage: bool = False) -> set[str]:
    models: list[Any] = [Dataset, Experiment, Task]
    user = User.objects.get(pk=user.pk)
    return {m._meta.model_name for m in models if visible(user, m.objects.all(), manage=manage).exists()}


@pytest.mark.parametrize(("level", "manages"), [("view", set()), ("manage", {"experiment", "task"})])
def test_a_run_is_shared_with_its_experiment_and_both_end_together(
    owned: Belongings, member: User, stranger: User, level: str, manages: set[str]
) -> None:
    sharing.set_access(user=member, obj=owned.task, to=stranger, level=level)
    assert sees(stranger) == {"experiment", "task"} and sees(stranger, manage=True) == manages
    sharing.set_access(user=member, obj=owned.experiment, to=stranger, level="none")
    assert sees(stranger) == set()


def test_group_members_have_access_while_they_are_members(owned: Belongings, member: User, stranger: User) -> None:
    team = Group.objects.create(name="night shift")
    sharing.set_access(user=member, obj=owned.dataset, to=team, level="view")
    assert sees(stranger) == set()
    stranger.groups.add(team)
    assert sees(stranger) == {"dataset"}
    stranger.groups.remove(team)
    assert sees(stranger) == set()


def test_list_says_who_sees_it_and_why(owned: Belongings, member: User, stranger: User, viewer: User) -> None:
    sharing.set_access(user=member, obj=owned.dataset, to=stranger, level="manage")
    sharing.set_access(user=member, obj=owned.dataset, to=Group.objects.get(name="viewer"), level="view")
    lines = [(line.name, line.level, line.why) for line in sharing.access_list(owned.dataset)]
    assert lines == [
        ("member", "owner", "Owner"),
        ("stranger", "manage", "Shared with this person"),
        ("all viewers", "view", "Shared with a group (members: 1)"),
        ("Administrators", "all", "Can view and manage everything"),
    ]


def test_shared_objects_are_visible_and_no_others(member: User, stranger: User) -> None:
    team = Group.objects.create(name="team")
    stranger.groups.add(team)
    things = [belongings(member, f"data-{n}").dataset for n in range(7)]
    for n, thing in enumerate(things[:6]):
        sharing.set_access(user=member, obj=thing, to=stranger if n % 2 else team, level="manage" if n < 3 else "view")
    own = belongings(stranger, "own").dataset
    seen, managed = (visible(stranger, Dataset.objects.all(), manage=manage) for manage in (False, True))
    assert set(seen) == {own, *things[:6]} and set(managed) == {own, *things[:3]}
    stranger.groups.clear()
    assert set(visible(stranger, Dataset.objects.all())) == {own, things[1], things[3], things[5]}


@pytest.mark.parametrize("level", ["view", "manage"])
def test_only_the_owner_shares_on(owned: Belongings, member: User, stranger: User, viewer: User, level: str) -> None:
    sharing.set_access(user=member, obj=owned.dataset, to=stranger, level=level)
    with pytest.raises(OnlyOwnerError):
        sharing.set_access(user=stranger, obj=owned.dataset, to=viewer, level="view")


def test_given_object_has_one_owner_and_its_run_follows(
    owned: Belongings, member: User, stranger: User, viewer: User
) -> None:
    sharing.set_access(user=member, obj=owned.experiment, to=stranger, level="owner")
    owned.task.refresh_from_db()
    assert owned.task.owner == stranger and sees(member) == {"dataset"} and sees(stranger) == {"experiment", "task"}
    with pytest.raises(InvalidError):
        sharing.set_access(user=stranger, obj=owned.experiment, to=viewer, level="owner")  # a viewer can't own


def test_leavers_objects_are_handed_over_in_one_step_and_the_account_is_closed(
    owned: Belongings, admin: User, member: User, stranger: User
) -> None:
    belongings(member, "other")
    assert services.close_account(user=admin, person=member, heir=stranger) == 6
    assert sharing.count_owned_objects(member) == {} and sharing.count_owned_objects(stranger) == {
        "dataset": 2,
        "experiment": 2,
        "model": 2,
    }
    assert not Task.objects.exclude(owner=stranger).exists()
    assert not User.objects.get(pk=member.pk).is_active
    done = list(Entry.objects.filter(username="admin").values_list("action", flat=True))
    assert done.count("owner.change") == 6 and {"owner.hand_over", "user.close"} <= set(done)


def test_leavers_objects_wait_for_an_heir_and_are_never_orphaned(owned: Belongings, admin: User, member: User) -> None:
    services.close_account(user=admin, person=member)
    assert Dataset.objects.get().owner == member and sees(admin) == {"dataset", "experiment", "task"}
    assert sharing.hand_over(user=admin, leaver=member, to=admin) == 3
    with pytest.raises(NotAllowedError):
        sharing.hand_over(user=member, leaver=admin, to=member)


def test_nobody_closes_their_own_account(admin: User) -> None:
    with pytest.raises(InvalidError):
        services.close_account(user=admin, person=admin)


def test_shares_go_with_the_object(owned: Belongings, member: User, stranger: User) -> None:
    sharing.set_access(user=member, obj=owned.experiment, to=stranger, level="view")
    sharing.set_access(user=member, obj=owned.experiment, to=Group.objects.get(name="viewer"), level="view")
    owned.experiment.delete()
    assert not UserObjectPermission.objects.exists() and not GroupObjectPermission.objects.exists()


@pytest.mark.medium
def test_page_shares_and_ends_it(client: Any, owned: Belongings, member: User, stranger: User) -> None:
    client.force_login(member)
    page = client.get("/datasets/mine/?tab=access").content.decode()
    assert "Share or transfer" in page and ">stranger</option>" in page
    sent = {"to": "stranger", "access": "view", "page": "/datasets/mine/?tab=access"}
    shared = client.post("/sharing/dataset/mine/", sent, follow=True)
    assert (
        shared.redirect_chain[0][0] == "/datasets/mine/?tab=access"
        and "Shared with this person" in shared.content.decode()
    )
    client.post("/sharing/dataset/mine/", {"to": "stranger", "access": "none"})
    assert sees(stranger) == set()
    client.post("/sharing/experiment/mine/", {"to": "group:viewer", "access": "manage"})
    assert [e.action for e in Entry.objects.filter(action__startswith="share")] == ["share", "share.end", "share"]


def test_reader_sees_the_list_but_no_form(client: Any, owned: Belongings, member: User, stranger: User) -> None:
    sharing.set_access(user=member, obj=owned.experiment, to=stranger, level="view")
    client.force_login(stranger)
    page = client.get("/experiments/mine/?tab=access", follow=True).content.decode()
    assert "Shared with this person" in page and 'name="access"' not in page


def test_api_shares_and_lists_access(api: Callable[..., Any], owned: Belongings, member: User, stranger: User) -> None:
    response = api(member).post("/api/sharing/experiment/mine", {"to": "stranger", "access": "view"}, format="json")
    assert [line["name"] for line in response.json()] == ["member", "stranger", "Administrators"]
    assert api(stranger).get("/api/sharing/experiment/mine").json() == response.json()
    wrong = api(member).post("/api/sharing/experiment/mine", {"to": "nobody", "access": "view"}, format="json")
    assert wrong.status_code == 400 and wrong.json()["errors"][0]["field"] == "to"
    assert api(member).get("/api/sharing/task/mine").status_code == 404


def test_quota_fields_and_admins_page(client: Any, admin: User, owned: Belongings, member: User) -> None:
    client.force_login(admin)
    client.post("/people/member/", {"do": "limits", "queued_limit": "3"})
    assert User.objects.get(pk=member.pk).queued_limit == 3
    make_user("heir", "member")
    client.post("/people/member/", {"do": "close", "heir": "heir"})
    assert not User.objects.get(pk=member.pk).is_active and Dataset.objects.get().owner.username == "heir"
    client.post("/people/member/", {"do": "reopen"})
    assert User.objects.get(pk=member.pk).is_active


def test_transfer_is_asked_for_twice(client: Any, member: User, stranger: User) -> None:
    dataset = belongings(member).dataset
    client.force_login(member)
    sent = {"to": "person:stranger", "access": "owner"}
    page = client.post("/sharing/dataset/mine/", sent).content.decode()
    assert "Transfer mine to stranger?" in page and "You will no longer see it" in page
    dataset.refresh_from_db()
    assert dataset.owner == member
    assert client.post("/sharing/dataset/mine/", sent | {"confirmed": "1"})["Location"] == "/"
    dataset.refresh_from_db()
    assert dataset.owner == stranger


@pytest.mark.parametrize("sent", [{"to": "everyone", "access": "owner"}, {"to": "member", "access": "view"}])
def test_refused_share_stays_on_its_page(client: Any, member: User, sent: dict[str, str]) -> None:
    belongings(member)
    client.force_login(member)
    page = client.post("/sharing/dataset/mine/", sent | {"page": "/datasets/mine/?tab=access"}, follow=True)
    assert page.redirect_chain == [("/datasets/mine/?tab=access", 302)]
    assert "Nothing was changed." in page.content.decode()
