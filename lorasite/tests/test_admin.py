"""The Django admin: only for administrators, changes only through the services, and every action audited."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import BaseModelRule, Role, User
from audit.models import Entry
from audit.services import record, verify
from datasets_app.models import Dataset, Version
from experiments.models import Alias, Experiment, ModelVersion, RegisteredModel
from monitoring.models import Worker
from monitoring.services import record_heartbeat
from testing.belongings import Belongings, belongings
from training.models import Status, Task
from work.queue import send

MODELS: list[Any] = [
    User, Group, BaseModelRule, Dataset, Version, Experiment, RegisteredModel, ModelVersion, Task, Entry, Worker,
]  # fmt: skip
PASSWORD = "correct-horse-9"


@pytest.fixture
def owned(member: Any) -> Belongings:
    record("dataset.store", user=member)
    record_heartbeat("cpu")
    return belongings(member)


@pytest.fixture
def browser(client: Any, admin: Any) -> Iterator[Any]:
    client.force_login(admin)
    return client


def address(model: Any, page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def pages() -> list[str]:
    addresses = [address(model, "changelist") for model in MODELS]
    return addresses + [address(model, "change", model.objects.order_by("pk")[0].pk) for model in MODELS]


def test_every_model_is_there_and_no_other() -> None:
    assert set(admin.site._registry) == set(MODELS)


@pytest.mark.slow
def test_every_list_and_page_opens_for_an_admin(browser: Any, owned: Belongings) -> None:
    for path in [reverse("admin:index"), *pages()]:
        answer = browser.get(path)
        assert answer.status_code == 200, path
        assert "default-src 'self'" in answer["Content-Security-Policy"]


@pytest.mark.medium
def test_every_list_can_be_searched(browser: Any, owned: Belongings) -> None:
    for model in MODELS:
        assert browser.get(address(model, "changelist"), {"q": "mine"}).status_code == 200, model


def test_admin_by_group_needs_no_further_permission(client: Any, admin: Any, owned: Belongings) -> None:
    assert not admin.is_superuser
    client.force_login(admin)
    assert {m["object_name"] for app in client.get("/admin/").context["app_list"] for m in app["models"]} == {
        model._meta.object_name for model in MODELS
    }


@pytest.mark.slow
@pytest.mark.parametrize("role", ["member", "viewer", "staff"])
def test_everybody_else_is_refused(client: Any, owned: Belongings, viewer: Any, member: Any, role: str) -> None:
    person = {"member": member, "viewer": viewer}.get(role) or User.objects.create_user("staff", is_staff=True)
    client.force_login(person)
    for path in [reverse("admin:index"), reverse("admin:login"), *pages()]:
        assert client.get(path).status_code == 403, path


@pytest.mark.medium
def test_anonymous_comes_to_the_one_sign_in(client: Any, owned: Belongings) -> None:
    for path in pages():
        assert client.get(path, follow=True).redirect_chain[-1][0] == f"/login/?next={path}"


@pytest.mark.parametrize("model", [Dataset, Version, Experiment, RegisteredModel, ModelVersion, Task, Entry, Worker])
def test_records_are_read_only(browser: Any, owned: Belongings, model: Any) -> None:
    one = model.objects.order_by("pk")[0]
    before = list(model.objects.values())
    assert browser.post(address(model, "add"), {}).status_code == 403
    for page in ("change", "delete"):
        assert browser.post(address(model, page, one.pk), {"post": "yes", "_save": "1"}).status_code == 403
    browser.post(address(model, "changelist"), {"action": "delete_selected", "_selected_action": [one.pk], "post": "y"})
    assert list(model.objects.values()) == before


def test_no_list_offers_a_deletion_that_bypasses_the_services(rf: Any, admin: Any) -> None:
    from django.contrib.admin import site

    request = rf.get("/")
    request.user = admin
    assert not any("delete_selected" in listed.get_actions(request) for listed in site._registry.values())


@pytest.mark.slow
def test_a_list_needs_as_many_queries_for_many_rows_as_for_one(browser: Any, owned: Belongings) -> None:
    def queries(model: Any) -> int:
        browser.get(address(model, "changelist"))
        with CaptureQueriesContext(connection) as seen:
            browser.get(address(model, "changelist"))
        return len(seen)

    few = {model: queries(model) for model in MODELS}
    for n in range(5):
        person = User.objects.create_user(f"person-{n}")
        person.set_role(Role.MEMBER)
        belongings(person, f"theirs-{n}")
        record("dataset.store", user=person)
    assert {model: queries(model) for model in MODELS} == few


def test_cancelling_goes_through_the_service(browser: Any, owned: Belongings) -> None:
    Task.objects.update(status=Status.PENDING)
    chosen = {"action": "cancel_tasks", "_selected_action": [str(owned.task.pk)]}
    browser.post(address(Task, "changelist"), chosen)
    owned.task.refresh_from_db()
    assert owned.task.status == Status.CANCELLED
    assert Entry.objects.get(action="task.cancel").username == "admin"


def test_champion_is_set_through_the_service(browser: Any, owned: Belongings) -> None:
    chosen = {"action": "make_champion", "_selected_action": [str(owned.model.latest_id)]}
    browser.post(address(ModelVersion, "changelist"), chosen)
    assert Alias.objects.get().version_id == owned.model.latest_id
    entry = Entry.objects.get(action="model.alias")
    assert (entry.username, entry.object_id) == ("admin", "mine@1")


@pytest.mark.medium
def test_queues_and_workers_of_rq_are_shown_beside_the_database(
    browser: Any, redis_server: str, owned: Belongings
) -> None:
    Task.objects.update(status=Status.PENDING)
    page = browser.get(address(Worker, "changelist"))
    assert ["cpu", 0, 0, 0, 1, 0] in page.context["queue_table"]["rows"]
    assert "RQ queues in Redis" in page.content.decode()
    assert send(Task, owned.task.pk)
    assert ["cpu", 1, 0, 0, 1, 0] in browser.get(address(Worker, "changelist")).context["queue_table"]["rows"]


def test_list_of_workers_opens_while_redis_is_down(browser: Any, owned: Belongings) -> None:
    assert "Redis does not answer" in browser.get(address(Worker, "changelist")).content.decode()


def test_account_is_added_changed_and_disabled_with_every_step_audited(browser: Any, db: None) -> None:
    new = {"username": "nina", "usable_password": "true", "password1": "a-long-word-7", "password2": "a-long-word-7"}
    browser.post(address(User, "add"), new | {"role": "viewer"})
    nina = User.objects.get(username="nina")
    assert nina.role == Role.VIEWER and not nina.is_staff
    browser.post(address(User, "change", nina.pk), {"username": "nina", "role": "admin"})
    nina = User.objects.get(username="nina")
    assert nina.role == Role.ADMIN and not nina.is_active
    done = list(Entry.objects.filter(object_id="nina").order_by("pk").values_list("action", flat=True))
    assert done == ["user.role_change", "admin.add", "user.role_change", "admin.change"]
    newest = Entry.objects.filter(action="user.role_change").values_list("details", flat=True).first()
    assert newest == {"role": "admin"}
    assert not any("a-long-word-7" in str(entry) for entry in Entry.objects.values())
    assert verify().holds


def test_teams_stay_when_the_role_changes(browser: Any, member: Any) -> None:
    team = Group.objects.create(name="night shift")
    form = {"username": "member", "is_active": "on", "groups": [team.pk]}
    browser.post(address(User, "change", member.pk), form | {"role": "member"})
    assert set(member.groups.values_list("name", flat=True)) == {"night shift", "member"}
    assert not Entry.objects.filter(action="user.role_change").exists()
    browser.post(address(User, "change", member.pk), form | {"role": "viewer"})
    assert set(member.groups.values_list("name", flat=True)) == {"night shift", "viewer"}


def test_a_superuser_who_becomes_a_member_is_no_longer_a_superuser(browser: Any, db: None) -> None:
    chief = User.objects.create_superuser("chief", None, PASSWORD)
    User.objects.filter(username="admin").update(is_superuser=True)  # only a superuser may
    browser.post(address(User, "change", chief.pk), {"username": "chief", "is_active": "on", "role": "member"})
    assert User.objects.get(username="chief").role == Role.MEMBER


def test_nobody_locks_themselves_out(browser: Any, admin: Any) -> None:
    browser.post(address(User, "change", admin.pk), {"username": "admin", "role": "viewer", "email": "new@example.org"})
    admin = User.objects.get(pk=admin.pk)
    assert admin.is_active and admin.role == Role.ADMIN and admin.email == "new@example.org"


def test_new_password_for_somebody_ends_their_tokens_and_is_audited(browser: Any, client: Any, member: Any) -> None:
    from rest_framework.test import APIClient

    tokens = APIClient().post("/api/login", {"username": "member", "password": PASSWORD}, format="json").json()
    new = {"password1": "a-long-word-7", "password2": "a-long-word-7", "usable_password": "true", "set-password": "1"}
    browser.post(reverse("admin:auth_user_password_change", args=[member.pk]), new)
    refused = APIClient().post("/api/login/refresh", {"refresh": tokens["refresh"]}, format="json")
    assert refused.status_code == 401
    entry = Entry.objects.get(action="user.password_change")
    assert (entry.username, entry.object_id) == ("admin", "member")


def test_groups_of_the_roles_keep_their_names_and_teams_can_go(browser: Any, db: None) -> None:
    role, _new = Group.objects.get_or_create(name="member")
    team = Group.objects.create(name="night shift")
    assert browser.post(address(Group, "change", role.pk), {"name": "x"}).status_code == 403
    assert browser.post(address(Group, "delete", role.pk), {"post": "yes"}).status_code == 403
    assert browser.post(address(Group, "change", team.pk), {"name": "day shift"}).status_code == 302
    assert browser.post(address(Group, "delete", team.pk), {"post": "yes"}).status_code == 302
    actions = Entry.objects.filter(object_type="group").order_by("pk").values_list("action", "object_id")
    assert list(actions) == [("admin.change", "day shift"), ("admin.delete", "day shift")]


def test_no_page_shows_a_password_hash_or_a_token(browser: Any, member: Any) -> None:
    page = browser.get(address(User, "change", member.pk)).content.decode()
    assert member.password not in page
    assert browser.get("/admin/token_blacklist/outstandingtoken/").status_code == 404
