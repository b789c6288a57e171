"""Worker and web server of two releases side by side, as an upgrade of several machines has them for a while.

What one leaves for the other is rows and ids: a job in Redis as it is written below, and tables whose old columns stay and
whose new ones an old process need not know.
"""

import json
import zlib
from typing import Any

import pytest
import redis
from django.apps import apps
from django.db import connection, models
from django.db.migrations.executor import MigrationExecutor

from training.models import Status
from work import queue

pytestmark = pytest.mark.django_db(transaction=True)
# The newest migrations of the last release, set when one is made. Until the first one: what it is built from.
RELEASED = {"datasets_app": "0001_initial", "experiments": "0001_initial", "monitoring": "0001_workers"}


def released() -> Any:
    """The models as a process of the last release has them."""
    return MigrationExecutor(connection).loader.project_state(list(RELEASED.items())).apps


def job_of(task_id: str) -> dict[str, Any]:
    """All that RQ needs of a job, byte for byte as releases write it."""
    call = json.dumps(["training.jobs.run", None, [task_id], {}]).encode()
    return {
        "status": "queued",
        "created_at": "2026-11-24T17:00:47.507108Z",
        "enqueued_at": "2026-11-24T17:00:47.509888Z",
        "data": zlib.compress(call),
        "origin": queue.device_kind(),
        "timeout": "-1",
        "result_ttl": "0",
        "failure_ttl": "3600",
    }


@pytest.mark.slow
def test_job_of_the_last_release_is_carried_out(submit, run_worker, redis_server):
    task = submit()
    with redis.Redis.from_url(redis_server) as there:
        there.flushall()
        there.hset(f"rq:job:{task.pk}-0", mapping=job_of(str(task.pk)))
        there.rpush(f"rq:queue:{queue.device_kind()}", f"{task.pk}-0")
    run_worker()
    task.refresh_from_db()
    assert (task.status, task.attempt) == (Status.SUCCESS, 1), task.error


def test_job_for_a_worker_of_the_last_release_is_an_id_as_json(submit, redis_server):
    task = submit()
    with redis.Redis.from_url(redis_server) as there:
        assert there.lrange(f"rq:queue:{queue.device_kind()}", 0, -1) == [f"{task.pk}-0".encode()]
        written = there.hgetall(f"rq:job:{task.pk}-0")
    wanted = job_of(str(task.pk))
    assert json.loads(zlib.decompress(written[b"data"])) == json.loads(zlib.decompress(wanted.pop("data")))
    same = {name: written[name.encode()].decode() for name in wanted}
    assert same == wanted | {name: same[name] for name in ("created_at", "enqueued_at")}


@pytest.mark.medium
def test_every_column_that_the_last_release_knows_is_there_and_new_ones_can_be_left_out():
    old = released()
    for model in apps.get_models():
        if model._meta.app_label in RELEASED and model._meta.model_name in old.all_models[model._meta.app_label]:
            old_columns = columns(old.get_model(model._meta.label))
            assert old_columns <= columns(model), model
            assert {name for name in columns(model) - old_columns if is_needed(model, name)} == set(), model


def columns(model: type[models.Model]) -> set[str]:
    return {str(field.column) for field in model._meta.concrete_fields}


def is_needed(model: type[models.Model], column: str) -> bool:
    with connection.cursor() as cursor:
        table = connection.introspection.get_table_description(cursor, model._meta.db_table)
    (info,) = [info for info in table if info.name == column]
    return not info.null_ok and info.default is None


def test_row_written_by_the_last_release_is_read_by_this_one(dataset):
    version, old = dataset.latest, released().get_model("datasets_app.Version")
    assert not hasattr(old, "tokens"), "a column that is newer"
    same = {field.attname: getattr(version, field.attname) for field in old._meta.concrete_fields}
    old.objects.create(**same | {"id": None, "number": 2})
    written = dataset.versions.get(number=2)
    assert (written.rows, written.change, written.tokens) == (version.rows, {}, {})
