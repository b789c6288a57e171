import fcntl
import os
import socket
import subprocess
import sys
import time
from functools import partial
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
from lorasite import embedded_redis
from lorasite.checks import TAG
from lorasite.env import BASE_DIR, env
from lorasite.file_permissions import restrict_file_permissions
from lorasite.lost_database import refuse_lost_database, write_marker
from lorasite.supervisor import Child, Supervisor, say
from lorasite.web_server import serve
from web import disk

MANAGE = str(Path(BASE_DIR) / "manage.py")
REDIS_START_LIMIT = 20.0  # seconds


class Command(BaseCommand):
    help = "Run everything: embedded Redis (if REDIS_URL is unset), workers and web server. Ctrl-C ends all of it."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--new", action="store_true", help="Start over even if the database of DATA_DIR was lost.")
        parser.add_argument(
            "--end-with-parent",
            action="store_true",
            help="End when the parent process ends, even by kill -9. `make start` uses this.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        parent = os.getppid() if options["end_with_parent"] else None
        for message in run_checks(tags=[TAG]):
            if message.is_serious():
                raise CommandError(f"{message.id}: {message.msg} {message.hint}")
            say(f"{message.id}: {message.msg} {message.hint}")
        for line in restrict_file_permissions():
            say(line)
        require_free_port()
        lock = lock_data_dir()
        disk.keep_reserve()
        if not options["new"]:
            refuse_lost_database()
        redis = None if env.redis_url else Child("redis", run_redis, repair=reset_redis)
        workers = [
            Child("worker", run_worker),
            Child("data worker", partial(run_worker, "--data")),
            Child("export worker", partial(run_worker, "--exports")),
        ]
        supervisor = Supervisor(*([redis] if redis else []), *workers, Child("web", serve))
        if redis:
            start_redis(supervisor, redis)
        try:
            prepare_database()
            say(f"http://{env.host}:{env.port}/ (Ctrl-C ends everything)")
            supervisor.run(parent)
        finally:
            supervisor.end()
            lock.close()


def require_free_port() -> None:
    """Raise CommandError if the web server could not listen: better one line now than a child that keeps dying."""
    family = socket.AF_INET6 if ":" in env.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((env.host, env.port))
        except OSError as error:
            raise CommandError(
                f"{env.host}:{env.port} can't be used ({error.strerror}). Set another PORT, e.g. PORT={env.port + 1} make start."
            ) from error


def lock_data_dir() -> IO[str]:
    """Lock DATA_DIR until the returned file is closed: a second start would write to the same files."""
    lock = (env.data_dir / "start.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CommandError(f"Lorasite already runs on {env.data_dir}. Stop it, or set another DATA_DIR.") from error
    os.set_inheritable(lock.fileno(), False)
    return lock


def start_redis(supervisor: Supervisor, redis: Child) -> None:
    """Start the embedded Redis before everything else, and wait until it answers."""
    deadline = time.monotonic() + REDIS_START_LIMIT
    supervisor.check(redis)
    while not embedded_redis.answers(env.redis_socket):
        supervisor.check(redis)
        if time.monotonic() > deadline:
            raise CommandError("The embedded Redis did not answer; the lines above say why.")
        time.sleep(0.02)


def prepare_database() -> None:
    """Migrate, fill an empty installation, and leave no connection open."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", verbosity=0)
    if not User.objects.exists():
        fill_installation()
    write_marker()
    # The log is often stored where someone who can write to the database cannot. `audit verify --head` checks this hash.
    say(f"audit log: {Entry.objects.count()} entries, head {chain_head()}")
    # Two processes must not share a connection after a fork.
    connections.close_all()


def fill_installation() -> None:
    """Create the first admin and the samples."""
    if not env.samples:
        call_command("first_start", new=True)
        sys.stdout.flush()  # a password that was generated; children that are forked would print it again
        return
    # In a process of its own, because the thread pool of polars would not survive the forks of the supervisor.
    first_start = subprocess.run([sys.executable, MANAGE, "first_start", "--new"], check=False)  # noqa: S603
    if first_start.returncode:
        raise CommandError("The first start did not finish; the lines above say why. Nothing runs.")


def run_redis() -> None:
    command = embedded_redis.server_command(env.redis_socket)
    os.execv(command[0], command)  # noqa: S606


def reset_redis() -> None:
    """Let Redis start empty if it cannot read its files: all ids in the queue are in the database too."""
    damaged = embedded_redis.move_damaged_files()
    if damaged:
        say(
            f"Redis does not start with its files; they are now {damaged}, and the queue is filled from the database again."
        )


def run_worker(*options: str) -> None:
    os.execv(sys.executable, [sys.executable, MANAGE, "worker", *options])  # noqa: S606
