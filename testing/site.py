"""Start a complete installation for a test: `manage.py start` with its own port and folders."""

import atexit
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from django.conf import settings
from psycopg import sql

from testing.migrated import copy_migrated_database

PASSWORD = "correct-horse-9-battery"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def database_of(folder: Path) -> dict[str, str]:
    """If the suite runs on PostgreSQL, create a database for the installation in `folder`; it is dropped when pytest ends."""
    server = os.environ.get("DATABASE_URL", "")
    if not server.startswith("postgres"):
        return {}
    name = f"site_{hashlib.sha256(bytes(folder)).hexdigest()[:16]}"
    with contextlib.suppress(psycopg.errors.DuplicateDatabase):
        on_server(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        atexit.register(on_server, server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    return {"DATABASE_URL": f"{server.rpartition('/')[0]}/{name}"}


def on_server(server: str, statement: sql.Composed) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement)


@contextmanager
def running_site(
    folder: Path, options: tuple[str, ...] = (), *, is_first_start: bool = False, **environment: str
) -> Iterator[str]:
    """Yield the site's address once its first page answers; stop everything at the end of the block.

    is_first_start: without a database, so that the start makes it, which takes longer.
    """
    port = free_port()
    env = os.environ | {
        "PORT": str(port),
        "DATA_DIR": str(folder / "data"),
        "RESULTS_DIR": str(folder / "results"),
        "DJANGO_SUPERUSER_USERNAME": "root",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "SAMPLES": "0",
        **database_of(folder),
        **environment,
    }
    if not is_first_start:
        prepare_files(folder, env)
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "start", *options]
    with (folder / "site.log").open("wb") as log:
        site = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for_page(site, f"http://127.0.0.1:{port}/", folder / "site.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(site.pid, signal.SIGTERM)
            site.wait(40)


def prepare_files(folder: Path, environment: dict[str, str]) -> None:
    """Let a site in `folder` share the static files of all sites, and copy a migrated database, if it uses SQLite and has none."""
    environment.setdefault("STATIC_ROOT", str(Path(settings.BASE_DIR) / ".pytest_cache/d/static"))
    if not environment.get("DATABASE_URL") and not (folder / "data/db.sqlite3").exists():
        copy_migrated_database(folder / "data")


PREPARE = """
import django; django.setup()
from django.core.management import call_command
from accounts.models import Role, User
call_command("migrate", verbosity=0)
root = User.objects.create_superuser("root", None, {password!r})
root.set_role(Role.ADMIN)
{more}
"""
SERVE = "import django; django.setup(); from lorasite.web_server import serve; serve()"


@contextmanager
def running_web(folder: Path, *, more: str = "", **environment: str) -> Iterator[tuple[str, str]]:
    """Run the web server alone. Yield its address, and what the Python code `more` printed before the start."""
    port = free_port()
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "lorasite.settings",
        "PORT": str(port),
        "DATA_DIR": str(folder / "data"),
        "RESULTS_DIR": str(folder / "results"),
        **database_of(folder),
        **environment,
    }
    prepare_files(folder, env)
    prepare = [sys.executable, "-c", PREPARE.format(password=PASSWORD, more=more)]
    output = subprocess.run(prepare, env=env, cwd=settings.BASE_DIR, check=True, capture_output=True, text=True).stdout
    with (folder / "site.log").open("wb") as log:
        web = subprocess.Popen([sys.executable, "-c", SERVE], env=env, cwd=settings.BASE_DIR, stdout=log, stderr=log)
        try:
            wait_for_page(web, f"http://127.0.0.1:{port}/login/", folder / "site.log")
            yield f"http://127.0.0.1:{port}", output.strip()
        finally:
            web.terminate()
            web.wait(20)


def wait_for_page(site: subprocess.Popen[bytes], address: str, log: Path, limit: float = 90) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if site.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no page at {address}; its output:\n{log.read_text(errors='replace')[-3000:]}")
