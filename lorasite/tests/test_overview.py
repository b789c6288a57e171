"""The overview: first steps, runs in progress and ended, what needs a look, models to try."""

from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.permissions import grant_access
from audit.services import record
from datasets_app.models import Finding
from experiments.models import Alias
from lorasite.overview import active_runs, ended_runs, first_steps
from testing.belongings import belongings
from testing.datasets import store_dataset
from testing.experiments import METRICS, row
from training.models import Point, Status, Task

pytestmark = pytest.mark.django_db


def text_of(client: Any, person: Any) -> str:
    client.force_login(person)
    answer = client.get("/")
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_new_member_sees_four_steps_and_viewer_none_of_what_needs_rights(client: Any, member: Any, viewer: Any) -> None:
    assert [step.done for step in first_steps(member)] == [False] * 4
    page = text_of(client, member)
    assert page.count('class="button primary"') == 2  # the next step, and signing in again in the dialog
    assert 'class="button primary" href="/datasets/new/"' in page
    page = text_of(client, viewer)
    assert "/datasets/new/" not in page and 'href="/train/' not in page and "steps-title" not in page
    assert "Nothing is shared with you yet" in page


def test_steps_tick_themselves_and_go_away_at_the_end(client: Any, member: Any, tweets_csv: Path) -> None:
    version = store_dataset(member, "tweets", tweets_csv)
    assert [step.done for step in first_steps(member)] == [True, True, False, False]
    assert 'href="/train/?dataset=tweets%401"' in text_of(client, member)
    row(member, "first", accuracy=0.8, version=version)
    assert [step.done for step in first_steps(member)] == [True, True, True, False]
    record("model.predict", user=member, obj=version)
    assert first_steps(member) == []
    assert "steps-title" not in text_of(client, member)


def test_data_with_a_problem_are_not_checked_yet(client: Any, member: Any) -> None:
    version = belongings(member).version
    Task.objects.all().delete()
    Finding.objects.create(version=version, code="one_label", severity="error", count=2, message="One label.")
    assert [step.done for step in first_steps(member)] == [True, False, False, False]
    assert "1 problem must be fixed first." in text_of(client, member)


def test_queued_runs_have_their_place_among_everybodys(client: Any, member: Any, stranger: Any) -> None:
    for owner, name in ((stranger, "theirs"), (member, "mine"), (member, "last")):
        task = belongings(owner, name).task
        Task.objects.filter(pk=task.pk).update(status=Status.PENDING)
    assert [(run.task.experiment.name, run.place) for run in active_runs(member)] == [("mine", 2), ("last", 3)]
    Task.objects.filter(experiment__name="last").update(status=Status.STARTED, step=20, total_steps=51)
    assert [run.task.experiment.name for run in active_runs(member)] == ["last", "mine"]
    page = text_of(client, member)
    assert "no. 2 in the queue" in page and "step 20 of 51" in page and "theirs" not in page


def test_recent_runs_show_their_score_and_its_difference_from_the_baseline(client: Any, member: Any) -> None:
    row(member, "good", accuracy=0.8)
    row(member, "worse", accuracy=0.0, metrics=METRICS | {"baseline": {"majority_accuracy": 0.25}})
    row(member, "old", accuracy=0.9, metrics={})
    row(member, "scores", accuracy=0.9, task_type="regression")
    Task.objects.update(status=Status.SUCCESS)
    differences = {run.task.experiment.name: run.difference for run in ended_runs(member)}
    assert differences == {"good": "+30.0 points", "worse": "−25.0 points", "old": "", "scores": ""}
    assert ">0.0000</span>" in text_of(client, member)


def test_run_that_did_not_learn_or_failed_needs_a_look(client: Any, member: Any, stranger: Any) -> None:
    row(member, "flat", accuracy=0.5, learned=False)
    failed = row(member, "broken", accuracy=None)
    Task.objects.filter(experiment=failed).update(error={"message": "Memory ran out."})
    grant_access(row(stranger, "theirs", accuracy=0.5, learned=False), to=member)
    client.force_login(member)
    items = {(item.name, item.word) for item in client.get("/").context["attention"] if item.name}
    assert items == {("flat", "did not learn"), ("broken", "failed")}
    assert "Memory ran out." in text_of(client, member)


def test_data_with_warnings_need_a_look_until_they_are_trained_on(client: Any, member: Any) -> None:
    owned = belongings(member)
    Finding.objects.create(version=owned.version, code="duplicates", severity="warning", count=9, message="Twice.")
    client.force_login(member)
    assert "1 warning" not in [item.word for item in client.get("/").context["attention"]]
    owned.experiment.delete()
    assert ("mine", "1 warning") in [(item.name, item.word) for item in client.get("/").context["attention"]]


def test_data_with_errors_are_named_once_however_many_runs_used_them(client: Any, member: Any) -> None:
    owned = belongings(member)
    row(member, "again", version=owned.version)
    Finding.objects.create(version=owned.version, code="rare_label", severity="error", count=1, message="Rare.")
    client.force_login(member)
    assert [item.name for item in client.get("/").context["attention"] if item.word == "1 error"] == ["mine"]


@pytest.mark.medium
def test_full_disk_is_for_those_who_can_make_room_and_those_who_have_to_know(
    client: Any, member: Any, admin: Any, viewer: Any, settings: Any
) -> None:
    settings.MIN_FREE_DISK = 2**80
    assert "Tell an administrator." in text_of(client, member)
    page = text_of(client, admin)
    assert "Disk full" in page and 'href="/system/">DATA_DIR</a>' in page
    assert "Disk full" not in text_of(client, viewer)


@pytest.mark.medium
def test_champion_has_a_box_that_asks_it(client: Any, member: Any, viewer: Any) -> None:
    champion, other = belongings(member, "champ").model, belongings(member, "other").model
    Alias.objects.create(model=champion, version=champion.versions.get(), name="champion")
    assert [card.reference for card in client_models(client, member)] == ["champ@champion"]
    assert client_models(client, viewer) == []
    grant_access(other, to=viewer)
    page = text_of(client, viewer)
    assert 'name="model" value="other"' in page and 'action="/predict/"' in page


def client_models(client: Any, person: Any) -> list[Any]:
    client.force_login(person)
    return list(client.get("/").context["models"])


@pytest.mark.medium
def test_only_administrators_see_the_installation(client: Any, admin: Any, member: Any) -> None:
    assert "installation-title" in text_of(client, admin)
    assert "installation-title" not in text_of(client, member)


def test_poll_renders_the_runs_alone(client: Any, member: Any) -> None:
    client.force_login(member)
    part = client.get("/", headers={"HX-Request": "true"})
    assert part.content.decode().lstrip().startswith('<section id="runs"') and "HX-Request" in part["Vary"]


@pytest.mark.medium
def test_overview_needs_as_many_queries_for_many_objects_as_for_few(client: Any, member: Any) -> None:
    def queries() -> int:
        client.get("/")
        with CaptureQueriesContext(connection) as seen:
            client.get("/")
        return len(seen)

    def add(name: str) -> None:
        belongings(member, f"ended-{name}")
        row(member, f"flat-{name}", accuracy=0.5, learned=False)
        waiting = belongings(member, f"waiting-{name}").task
        Task.objects.filter(pk=waiting.pk).update(status=Status.PENDING)

    client.force_login(member)
    add("first")
    few = queries()
    for n in range(9):
        add(str(n))
    assert queries() == few <= 25


def test_recent_runs_have_the_states_and_scores_of_their_pages(client: Any, member: Any) -> None:
    cancelled = row(member, "stopped", metrics={})
    Task.objects.filter(experiment=cancelled).update(status=Status.CANCELLED)
    Point.objects.create(task=cancelled.task, step=5, epoch=1, accuracy=0.4, eval_loss=1.0)
    row(member, "idle", accuracy=0.5, learned=False)
    client.force_login(member)
    page = client.get("/").content.decode()
    assert '<span class="badge" data-status="cancelled">cancelled</span>' in page
    assert '0.4000 <span class="muted">so far</span>' in page
    assert '<span class="badge" data-status="warning">did not learn</span>' in page and "0.5000" in page
