"""The pages of people: roles are explained, changed and filtered by."""

from typing import Any

import pytest

from accounts.models import Role, User
from audit.models import Entry
from testing.belongings import belongings
from testing.experiments import row


@pytest.fixture
def browser(client: Any, admin: User) -> Any:
    client.force_login(admin)
    return client


def test_role_is_changed_on_the_page_of_the_person(browser: Any, member: User) -> None:
    page = browser.get("/people/member/").content.decode()
    assert all(str(role.explanation) in page for role in Role)
    browser.post("/people/member/", {"do": "role", "role": "viewer"})
    assert User.objects.get(pk=member.pk).role == Role.VIEWER
    assert Entry.objects.get(action="user.role_change").details == {"role": "viewer"}


def test_unknown_role_and_ones_own_are_refused(browser: Any, admin: User, member: User) -> None:
    assert browser.post("/people/member/", {"do": "role", "role": "root"}).status_code == 400
    assert browser.post("/people/admin/", {"do": "role", "role": "viewer"}).status_code == 400
    assert 'value="role"' not in browser.get("/people/admin/").content.decode()
    assert [User.objects.get(pk=user.pk).role for user in (admin, member)] == [Role.ADMIN, Role.MEMBER]


def test_superuser_keeps_the_role_before_another_administrator(browser: Any) -> None:
    root = User.objects.create_superuser("root")
    assert browser.post("/people/root/", {"do": "role", "role": "viewer"}).status_code == 403
    assert User.objects.get(pk=root.pk).is_superuser


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("admin", {"admin", "root"}),
        ("member", {"member"}),
        ("viewer", {"viewer", "newcomer"}),
        ("wrong", {"admin", "root", "member", "viewer", "newcomer"}),
    ],
)
def test_people_are_filtered_by_their_strongest_role(
    browser: Any, admin: User, member: User, viewer: User, role: str, names: set[str]
) -> None:
    User.objects.create_superuser("root").set_role(Role.ADMIN)
    User.objects.create_user("newcomer")
    page = browser.get("/people/", {"role": role}).context["page"]
    assert {user.username for user in page} == names


def test_list_counts_runs_and_the_disk_space_when_asked(
    browser: Any, member: User, viewer: User, django_assert_max_num_queries: Any
) -> None:
    owned = belongings(member)
    row(member, "second")
    with django_assert_max_num_queries(12):
        page = browser.get("/people/?role=member")
    assert [(person.runs, storage) for person, storage in page.context["lines"]] == [(2, None)]
    assert "Disk used" not in page.content.decode()
    page = browser.get("/people/?role=member&disk=1")
    ((_person, storage),) = page.context["lines"]
    assert storage >= owned.version.path.stat().st_size and "Disk used" in page.content.decode()
