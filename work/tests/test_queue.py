"""What happens between the database and Redis."""

from datetime import timedelta
from uuid import UUID

import pytest
import redis
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from training import jobs, services
from training.models import Status, Task
from training.tests.conftest import tiny
from work import lease, queue
from work.models import task_kinds
from work.reconciler import reconcile

pytestmark = pytest.mark.django_db(transaction=True)


def waiting_ids(url: str) -> list[str]:
    with redis.Redis.from_url(url) as connection:
        return queue.rq_queue(queue.device_kind(), connection).job_ids


def make_old(task: Task, **age: float) -> None:
    Task.objects.filter(pk=task.pk).update(sent_at=timezone.now() - timedelta(**age))


def test_submitted_id_and_nothing_else_is_in_the_queue(submit, redis_server):
    task = submit()
    with redis.Redis.from_url(redis_server) as connection:
        job = queue.rq_queue(queue.device_kind(), connection).jobs[0]
    assert (job.func_name, list(job.args), job.kwargs) == ("training.jobs.run", [str(task.pk)], {})
    task.refresh_from_db()
    assert task.sent_at is not None


def test_job_names_that_may_wait_in_redis_lead_to_functions():
    """A job that an earlier release sent has one of these names."""
    names = {kind.job for kind in task_kinds()}
    assert names == {
        "training.jobs.run",
        "training.jobs.measure",
        "datasets_app.jobs.run",
        "notifications.jobs.run",
        "experiments.registry.export_jobs.run",
    }
    assert all(callable(import_string(name)) for name in names)


def test_submit_without_redis_is_accepted_at_once_and_sent_later(submit, api, member, settings, redis_server):
    there, settings.REDIS_URL = settings.REDIS_URL, "redis://127.0.0.1:1/0"
    started = timezone.now()
    task = submit()
    assert timezone.now() - started < timedelta(seconds=5)
    task.refresh_from_db()
    assert (task.status, task.sent_at) == (Status.PENDING, None)
    assert "Waiting for the queue" in api(member).get(f"/api/task/{task.pk}").json()["note"]
    settings.REDIS_URL = there
    reconcile()
    assert waiting_ids(there) == [f"{task.pk}-0"]


@pytest.mark.medium
def test_emptied_redis_gets_each_waiting_task_once(submit, redis_server):
    tasks = [submit(tiny(f"run-{n}")) for n in range(3)]
    for task in tasks:
        make_old(task, seconds=30)
    with redis.Redis.from_url(redis_server) as connection:
        connection.flushall()
    assert reconcile()["sent_again"] == 3
    assert reconcile()["sent_again"] == 0
    assert waiting_ids(redis_server) == [f"{task.pk}-0" for task in tasks]


def test_waiting_task_that_redis_has_is_not_sent_again(submit, redis_server):
    task = submit()
    make_old(task, hours=5)
    reconcile()
    assert len(waiting_ids(redis_server)) == 1


def test_task_with_sent_at_from_the_databases_clock_is_sent_again(submit, redis_server, monkeypatch):
    submit()
    monkeypatch.setattr(queue, "RESEND_AFTER", timedelta(seconds=-1))
    with redis.Redis.from_url(redis_server) as connection:
        connection.flushall()
    assert reconcile()["sent_again"] == 1


def test_two_senders_of_one_task_send_it_once(submit, redis_server):
    task = submit()
    make_old(task, seconds=30)
    first, second = Task.objects.get(pk=task.pk), Task.objects.get(pk=task.pk)
    assert queue.claim(first)
    assert not queue.claim(second)


def test_task_lost_between_pop_and_start_is_sent_again(submit, redis_server, monkeypatch):
    task = submit()
    make_old(task, seconds=30)
    with redis.Redis.from_url(redis_server) as connection:
        q = queue.rq_queue(queue.device_kind(), connection)
        connection.lmove(q.key, q.intermediate_queue_key, "LEFT", "RIGHT")  # a worker popped it and died
        reconcile()
        assert waiting_ids(redis_server) == [], "the worker may still be about to start it"
        connection.expire(queue.popped_key(Task.objects.get(pk=task.pk)), 3600 - 20)
        reconcile()
        assert waiting_ids(redis_server) == [f"{task.pk}-0"]
        assert q.intermediate_queue.get_job_ids() == []


def test_rolled_back_submit_reaches_no_worker(submit, redis_server):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        submit()
        1 / 0  # noqa: B018
    assert waiting_ids(redis_server) == []
    assert not Task.objects.exists()


def test_job_delivered_twice_runs_once(submit):
    task = submit()
    first, second = lease.acquire(Task, task.pk), lease.acquire(Task, task.pk)
    assert first is not None and (first.status, first.attempt, second) == (Status.STARTED, 1, None)


def test_job_of_a_task_that_no_longer_exists_does_nothing():
    missing = "00000000-0000-4000-8000-000000000000"
    assert lease.acquire(Task, UUID(missing)) is None
    jobs.run(missing)


def test_cancelled_waiting_task_is_never_trained(submit, member, run_worker):
    task = submit()
    services.cancel(user=member, task=task)
    run_worker()
    task.refresh_from_db()
    assert (task.status, task.attempt) == (Status.CANCELLED, 0)
