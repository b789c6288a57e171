"""The life of a job, with a kind of task that does nothing but what a test tells it to."""

from collections.abc import Callable

import pytest
from django.db import OperationalError

from training import services
from training.models import Status, Task
from web.errors import InvalidError
from work import lease, running
from work.running import StopSignal, TaskRunner, TaskStoppedError, end_attempt

pytestmark = pytest.mark.django_db(transaction=True)


class DummyRunner(TaskRunner[Task, str]):
    model = Task

    def __init__(self, perform: Callable[[Task, StopSignal], str]) -> None:
        self.function = perform

    def perform(self, task: Task, stop: StopSignal) -> str:
        return self.function(task, stop)

    def finish(self, task: Task, outcome: str) -> None:
        end_attempt(task, Status.SUCCESS, result={"outcome": outcome})


@pytest.fixture
def task(submit):
    return submit()


def run(task: Task, perform: Callable[[Task, StopSignal], str]) -> Task:
    DummyRunner(perform).run(str(task.pk))
    task.refresh_from_db()
    return task


def test_outcome_is_stored_with_success_and_the_lease_is_released(task):
    run(task, lambda task, stop: "42")
    assert (task.status, task.result, task.attempt) == (Status.SUCCESS, {"outcome": "42"}, 1)
    assert (task.lease_until, task.worker) == (None, "") and task.ended_at is not None


def test_error_with_a_code_fails_the_task_with_code_field_and_advice(task):
    def perform(task, stop):
        raise InvalidError("The seed is too large.", field="training.seed")

    run(task, perform)
    assert (task.status, task.error["code"]) == (Status.FAILURE, InvalidError.code)
    assert (task.error["message"], task.error["field"]) == ("The seed is too large.", "training.seed")
    assert task.error["kept"] == str(Task.messages.error_kept)
    assert task.error["next"] == str(Task.messages.known_error_next)


def test_unexpected_error_fails_the_task_with_a_number_instead_of_a_traceback(task):
    run(task, lambda task, stop: str(1 / 0))
    assert (task.status, task.error["code"]) == (Status.FAILURE, "unexpected")
    assert task.error["id"] in task.error["message"] and "division" not in str(task.error)


def test_cancelled_task_stops_at_its_next_check(task, member):
    def perform(task, stop):
        assert not stop.is_set()
        services.cancel(user=member, task=Task.objects.get(pk=task.pk))
        stop.checked_at = 0.0
        assert stop.is_set()
        raise TaskStoppedError

    assert run(task, perform).status == Status.CANCELLED


def test_task_of_a_stopping_worker_goes_back_to_the_queue(task):
    def perform(task, stop):
        running.request_stop()
        assert stop.is_set()
        raise TaskStoppedError

    try:
        run(task, perform)
    finally:
        running.stopping.clear()
    assert (task.status, task.sent_at, task.worker, task.deaths) == (Status.PENDING, None, "", 0)


def test_attempt_that_lost_its_lease_writes_nothing(task):
    def perform(task, stop):
        Task.objects.filter(pk=task.pk).update(attempt=2, step=7)  # another worker has started it
        return "late"

    run(task, perform)
    assert (task.status, task.attempt, task.step, task.result) == (Status.STARTED, 2, 7, None)


def test_end_is_written_although_the_database_was_away_for_a_moment(task, monkeypatch):
    monkeypatch.setattr(running.time, "sleep", lambda seconds: None)
    failures = [OperationalError("server closed the connection")]

    class Runner(DummyRunner):
        def finish(self, task, outcome):
            if failures:
                raise failures.pop()
            super().finish(task, outcome)

    Runner(lambda task, stop: "42").run(str(task.pk))
    task.refresh_from_db()
    assert (task.status, task.result) == (Status.SUCCESS, {"outcome": "42"})


def test_job_of_a_task_that_no_longer_waits_does_nothing(task, member):
    services.cancel(user=member, task=task)
    assert lease.acquire(Task, task.pk) is None
    assert run(task, lambda task, stop: "42").status == Status.CANCELLED
