"""Who holds a task, who takes it back, and whose writes count."""

from datetime import timedelta

import pytest
from django.utils import timezone

from engine import events
from training import services
from training.models import LogLine, Point, Status, Task, WrongStateError
from training.progress import TrainingProgress
from work import lease
from work.reconciler import reconcile, take_back

pytestmark = pytest.mark.django_db(transaction=True)
STEP = events.StepDone(1, 10, 0.1, 0.5, 1e-4, 1.0, 100, 1000.0, 9.0)


@pytest.fixture
def started(submit):
    return lease.acquire(Task, submit().pk)


def run_out(task: Task, **changes: object) -> None:
    Task.objects.filter(pk=task.pk).update(lease_until=timezone.now() - timedelta(seconds=1), **changes)


def test_abandoned_task_goes_back_to_the_queue(started, redis_server):
    run_out(started)
    assert reconcile() == {"taken_back": 1, "sent": 1, "sent_again": 0}
    started.refresh_from_db()
    assert (started.status, started.deaths, started.attempt) == (Status.PENDING, 1, 1)


def test_abandoned_task_is_taken_back_without_redis_too(started):
    run_out(started)
    reconcile()
    started.refresh_from_db()
    assert (started.status, started.sent_at) == (Status.PENDING, None)


def test_task_with_a_living_lease_is_left_alone(started):
    assert reconcile()["taken_back"] == 0
    started.refresh_from_db()
    assert started.status == Status.STARTED


def test_lease_that_was_renewed_meanwhile_is_respected(started):
    run_out(started)
    seen = Task.objects.get(pk=started.pk)
    lease.renew(started)
    assert take_back(seen) is False
    started.refresh_from_db()
    assert started.status == Status.STARTED


def test_two_reconcilers_take_a_task_back_once(started):
    run_out(started)
    first, second = Task.objects.get(pk=started.pk), Task.objects.get(pk=started.pk)
    assert (take_back(first), take_back(second)) == (True, False)
    started.refresh_from_db()
    assert started.deaths == 1


def test_third_death_at_the_same_step_fails_the_task(started):
    for _ in range(3):
        run_out(started, step=7)
        reconcile()
        lease.acquire(Task, started.pk)
    started.refresh_from_db()
    assert started.status == Status.FAILURE
    assert started.error["code"] == "worker_lost"
    assert "3 times near step 7" in started.error["message"]


@pytest.mark.medium
def test_deaths_at_later_steps_do_not_add_up(started):
    for step in (10, 20, 30, 40):
        run_out(started, step=step)
        reconcile()
        lease.acquire(Task, started.pk)
    started.refresh_from_db()
    assert (started.status, started.deaths) == (Status.STARTED, 1)


def test_abandoned_task_that_was_to_be_cancelled_is_cancelled(started, member):
    services.cancel(user=member, task=started)
    run_out(started)
    reconcile()
    started.refresh_from_db()
    assert started.status == Status.CANCELLED


def test_writes_of_a_stale_attempt_are_refused(started):
    stale = Task.objects.select_related("experiment").get(pk=started.pk)
    run_out(started)
    reconcile()
    current = lease.acquire(Task, started.pk)
    assert current is not None
    progress = TrainingProgress(stale)
    with pytest.raises(lease.LeaseLostError):
        progress.add(STEP)
    with pytest.raises(WrongStateError):
        stale.move(Status.SUCCESS, frm=[Status.STARTED], attempt=stale.attempt)
    current.refresh_from_db()
    assert (current.status, current.attempt, current.step) == (Status.STARTED, 2, 0)
    assert not Point.objects.exists()


def test_progress_is_written_with_points_and_log(started):
    progress = TrainingProgress(started)
    progress.add(STEP)
    progress.evaluations[1] = Point(task=started, step=1, epoch=0.1, accuracy=0.9)
    progress.write()
    point = Point.objects.get()
    assert (point.loss, point.accuracy, point.tokens_per_second) == (0.5, 0.9, 1000.0)
    assert (point.memory_mb or 0) > 10
    started.refresh_from_db()
    assert (started.step, started.total_steps, started.loss) == (1, 10, 0.5)
    assert "loss 0.5000" in LogLine.objects.get().text


def test_progress_is_written_at_most_once_a_second(started, django_assert_num_queries):
    progress = TrainingProgress(started)
    progress.add(STEP)
    with django_assert_num_queries(0):
        progress.add(events.StepDone(2, 10, 0.2, 0.4, 1e-4, 1.0, 100, 1000.0, 8.0))
    progress.written_at -= 1  # a second later
    progress.write_when_due()
    started.refresh_from_db()
    assert started.step == 2


def test_second_cancel_is_refused_and_changes_nothing(submit, member):
    task = services.cancel(user=member, task=submit())
    ended_at = task.ended_at
    with pytest.raises(WrongStateError):
        services.cancel(user=member, task=task)
    task.refresh_from_db()
    assert task.ended_at == ended_at


def test_running_task_cannot_be_resumed(started, member):
    with pytest.raises(WrongStateError):
        services.resume(user=member, task=started)
