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
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor

from accounts.models import User
from audit.models import Entry
from audit.services import chain_head
from lorasite import embedded, installation
from lorasite.checks import TAG
from lorasite.env import BASE_DIR, env
from lorasite.private_files import keep_private
from lorasite.supervisor import Child, Supervisor, say
from web import disk


class Command(BaseCommand):
    help = "Run everything: embedded Redis (when REDIS_URL is unset), worker and web server. Ctrl-C ends all of it."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--new", action="store_true", help="Begin anew where files say that the database was lost.")
        parser.add_argument(
            "--end-with-parent",
            action="store_true",
            help="End when the process that started this one ends, even by kill -9; `make start` asks for it.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        parent = os.getppid() if options["end_with_parent"] else None
        refuse_unsafe_settings()
        for line in keep_private():
            say(line)
        require_free_port()
        lock = require_only_one()
        disk.keep_reserve()
        if not options["new"]:
            installation.refuse_lost_database()
        redis = [] if env.redis_url else [Child("redis", run_redis, repair=set_queue_aside)]
        supervisor = Supervisor(
            *redis, Child("worker", run_worker), Child("data worker", run_data_worker), Child("web", run_web)
        )
        if redis:
            start_redis(supervisor)
        try:
            migrate()
            prepare()
            installation.mark()
            publish_head()
            connections.close_all()  # nothing of the database may cross the forks below
            say(f"http://{env.host}:{env.port}/ (Ctrl-C ends everything)")
            supervisor.run(parent)
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
    say(f"audit log: {Entry.objects.count()} entries, head {chain_head()}")


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
    end = time.monotonic() + limit
    supervisor.tend_one("redis")
    while not embedded.answers(env.redis_socket):
        supervisor.tend_one("redis")
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
        if subprocess.run([sys.executable, manage, "first_start", "--new"], check=False).returncode:  # noqa: S603  ours
            raise CommandError("The first start did not finish; the lines above say why. Nothing runs.")


def run_redis() -> None:
    line = embedded.command(env.redis_socket)
    os.execv(line[0], line)  # noqa: S606  the command is ours


def set_queue_aside() -> None:
    """The queue holds ids that the database knows too, so files that Redis can't read must not keep the site down."""
    if aside := embedded.set_aside():
        say(
            f"Redis does not start with its files; they are now {aside}, and the queue is filled from the database again."
        )


def run_worker(*options: str) -> None:
    manage = str(Path(BASE_DIR) / "manage.py")
    os.execv(sys.executable, [sys.executable, manage, "worker", *options])  # noqa: S606  ours


def run_data_worker() -> None:
    run_worker("--data")


def run_web() -> None:
    from lorasite.web_server import serve

    serve()
