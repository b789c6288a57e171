import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor

from accounts.models import User
from audit.models import Entry
from audit.services import head
from lorasite import embedded
from lorasite.checks import TAG
from lorasite.env import BASE_DIR, env
from lorasite.private_files import keep_private
from lorasite.supervisor import Child, Supervisor, say


class Command(BaseCommand):
    help = "Run everything: embedded Redis (when REDIS_URL is unset), worker and web server. Ctrl-C ends all of it."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_unsafe_settings()
        for line in keep_private():
            say(line)
        require_free_port()
        lock = require_only_one()
        redis = [] if env.redis_url else [Child("redis", run_redis)]
        supervisor = Supervisor(
            *redis, Child("worker", run_worker), Child("data worker", run_data_worker), Child("web", run_web)
        )
        if redis:
            start_redis(supervisor)
        try:
            migrate()
            prepare()
            publish_head()
            connections.close_all()  # nothing of the database may cross the forks below
            say(f"http://{env.host}:{env.port}/ (Ctrl-C ends everything)")
            supervisor.run()
        finally:
            supervisor.end()
            lock.close()


def refuse_unsafe_settings() -> None:
    for message in run_checks(tags=[TAG]):
        if message.is_serious():
            raise CommandError(f"{message.id}: {message.msg} {message.hint}")
        say(f"{message.id}: {message.msg} {message.hint}")


def publish_head() -> None:
    """Into the log, which is often kept where the database can't be written from: `audit verify --head` asks for it."""
    say(f"audit log: {Entry.objects.count()} entries, head {head()}")


def require_free_port() -> None:
    family = socket.AF_INET6 if ":" in env.host else socket.AF_INET
    with socket.socket(family) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((env.host, env.port))
        except OSError as error:
            raise CommandError(
                f"{env.host}:{env.port} can't be used ({error.strerror}). Set another PORT, e.g. PORT={env.port + 1} make start."
            ) from error


def require_only_one() -> IO[str]:
    """Hold DATA_DIR for this process; a second start on it would fight over the same files."""
    lock = (env.data_dir / "start.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CommandError(f"Lorasite already runs on {env.data_dir}. Stop it, or set another DATA_DIR.") from error
    os.set_inheritable(lock.fileno(), False)
    return lock


def start_redis(supervisor: Supervisor, limit: float = 20) -> None:
    supervisor.tend_one("redis")
    end = time.monotonic() + limit
    while not embedded.answers(env.redis_socket):
        if time.monotonic() > end:
            raise CommandError("The embedded Redis did not answer; the lines above say why.")
        time.sleep(0.02)


def migrate() -> None:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", verbosity=0)


def prepare() -> None:
    """An empty installation is filled by a process of its own: polars' threads would not survive the forks here."""
    if not User.objects.exists():
        manage = str(Path(BASE_DIR) / "manage.py")
        if subprocess.run([sys.executable, manage, "first_start"], check=False).returncode:  # noqa: S603  ours
            raise CommandError("The first start did not finish; the lines above say why. Nothing runs.")


def run_redis() -> None:
    line = embedded.command(env.redis_socket)
    os.execv(line[0], line)  # noqa: S606  the command is ours


def run_worker(*options: str) -> None:
    manage = str(Path(BASE_DIR) / "manage.py")
    os.execv(sys.executable, [sys.executable, manage, "worker", *options])  # noqa: S606  ours


def run_data_worker() -> None:
    run_worker("--data")


def run_web() -> None:
    from lorasite.web import serve

    serve()
