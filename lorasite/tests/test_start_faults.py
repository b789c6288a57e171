"""`manage.py start` with unusable folders and databases: what it reports, and what it repairs itself."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.core.management.base import CommandError

from lorasite import embedded_redis
from lorasite.lost_database import refuse_lost_database, write_marker
from testing.migrated import copy_migrated_database
from testing.site import PASSWORD, database_of, free_port, running_site

from .test_start import MANAGE, eventually, start

QUEUE = """
import sys
import django; django.setup()
import redis
from lorasite.env import env
from lorasite.management.commands.start import reset_redis, run_redis, start_redis
from lorasite.supervisor import Child, Supervisor

for round in range(2):
    child = Child("redis", run_redis, repair=reset_redis)
    supervisor = Supervisor(child)
    try:
        start_redis(supervisor, child)
        client = redis.Redis(unix_socket_path=str(env.redis_socket))
        print("keys", client.dbsize())
        for number in range(300):
            client.set(f"key-{round}-{number}", "x" * 40)
    finally:
        supervisor.end()
    folder = env.data_dir / "redis" / "appendonlydir"
    damage = {damage}
    [newest] = folder.glob("*.incr.aof")
    damage(folder, newest)
"""
ZEROS = "lambda folder, file: file.write_bytes((b := file.read_bytes())[:3000] + bytes(60) + b[3060:])"
NO_MANIFEST = "lambda folder, file: [path.write_bytes(b'') for path in folder.glob('*.manifest')]"
NO_BASE = "lambda folder, file: [path.unlink() for path in folder.glob('*.base.*')]"
NOISE = "lambda folder, file: [path.write_bytes(bytes(range(256)) * 40) for path in folder.iterdir()]"


@pytest.mark.process
@pytest.mark.parametrize("damage", [ZEROS, NO_MANIFEST, NO_BASE, NOISE], ids=["zeros", "manifest", "base", "noise"])
def test_damaged_queue_files_are_set_aside_and_the_queue_starts_empty(tmp_path: Path, damage: str) -> None:
    env = os.environ | {
        "DATA_DIR": str(tmp_path / "data"),
        "DJANGO_SETTINGS_MODULE": "lorasite.settings",
        "REDIS_URL": "",
    }
    line = [sys.executable, "-c", QUEUE.replace("{damage}", damage)]
    ran = subprocess.run(line, env=env, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [text for text in ran.stdout.splitlines() if text.startswith("keys")] == ["keys 0", "keys 0"]
    [message] = [text for text in ran.stdout.splitlines() if "the queue is filled from the database again" in text]
    [aside] = (tmp_path / "data/redis").glob("damaged-*")
    assert str(aside) in message and any(aside.iterdir())


def test_only_the_newest_damaged_queue_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis.env, "data_dir", tmp_path)
    moved = []
    for _round in range(4):
        (tmp_path / "redis/appendonlydir").mkdir(parents=True)
        moved.append(embedded_redis.move_damaged_files())
    assert sorted((tmp_path / "redis").iterdir()) == moved[-embedded_redis.DAMAGED_COPIES :]
    assert embedded_redis.move_damaged_files() is None


def refused(folder: Path) -> str:
    """Start the site on SQLite; return the only line of its error."""
    ended = start(folder, free_port(), DATABASE_URL="", RESULTS_DIR=str(folder / "results"))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    [line] = ended.stderr.strip().splitlines()
    return line


def garbage(data: Path) -> None:
    data.mkdir(exist_ok=True)
    (data / "db.sqlite3").write_bytes(bytes(range(1, 256)) * 160)


def torn(data: Path) -> None:
    """Write a database whose second half was overwritten."""
    data.mkdir(exist_ok=True)
    with sqlite3.connect(data / "db.sqlite3") as made:
        for number in range(50):
            made.execute(f"CREATE TABLE t{number} (text TEXT)")
    whole = (data / "db.sqlite3").read_bytes()
    (data / "db.sqlite3").write_bytes(whole[:1000] + os.urandom(len(whole) - 1000))


def another_programs(data: Path) -> None:
    data.mkdir(exist_ok=True)
    with sqlite3.connect(data / "db.sqlite3") as made:
        made.execute("CREATE TABLE recipes (text TEXT)")


def file_as_folder(data: Path) -> None:
    with suppress(OSError):
        (data / "uploads").rmdir()
        data.rmdir()
    data.write_text("a file")


@pytest.mark.process
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (garbage, "is damaged (file is not a database). Nothing was changed."),
        (torn, "is damaged (database disk image is malformed). Nothing was changed."),
        (another_programs, "belongs to another program"),
        (file_as_folder, "can't be used (it is not a folder)"),
    ],
)
def test_unusable_folder_or_database_is_reported_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / "data")
    assert words in refused(tmp_path)


@pytest.mark.process
def test_folder_on_a_read_only_disk_is_reported_in_one_line(tmp_path: Path) -> None:
    place = tmp_path / "data"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root mounts, and not in every container")
    try:
        assert "can't be used (Read-only file system). DATA_DIR must be" in refused(tmp_path)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.process
def test_lost_database_is_refused_until_it_is_back_or_a_new_one_is_requested(tmp_path: Path) -> None:
    database = tmp_path / "data/db.sqlite3"
    copy_migrated_database(tmp_path / "data")
    assert command(tmp_path, "first_start").returncode == 0
    content = database.read_bytes()
    database.write_bytes(b"")
    assert "is empty (0 bytes), but" in refused(tmp_path) and database.read_bytes() == b""
    database.unlink()
    assert "does not exist, but" in refused(tmp_path) and not database.exists()
    command(tmp_path, "migrate", "-v0")  # as containers do before they start
    again = command(tmp_path, "first_start")
    assert again.returncode == 1 and "has no account, but" in again.stderr
    database.write_bytes(content)
    assert command(tmp_path, "first_start").returncode == 0
    database.unlink()
    with running_site(tmp_path, options=("--new",), is_first_start=True, DATABASE_URL=""):
        assert database.stat().st_size


def command(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"DATA_DIR": str(folder / "data"), "DATABASE_URL": "", "SAMPLES": "0"}
    return subprocess.run([sys.executable, MANAGE, *line], env=env, capture_output=True, text=True, timeout=240)


@pytest.mark.django_db
def test_only_files_of_a_lost_database_are_refused(tmp_path: Path) -> None:
    """Files that any command creates prove nothing; those of an installation with accounts do."""
    data = Path(settings.DATA_DIR)
    for name in ("redis/appendonlydir", "uploads", "static", "cache/tokens", "datasets"):
        (data / name).mkdir(parents=True, exist_ok=True)
    for name in ("secret_key", "start.lock", "reserve"):
        (data / name).write_text("x")
    (Path(settings.RESULTS_DIR) / "run-of-the-installation-beside").mkdir()
    refuse_lost_database()
    (data / "datasets/ab").mkdir()
    with pytest.raises(CommandError, match=r"has no account, but .* contains datasets/ of an earlier installation"):
        refuse_lost_database()
    (data / "datasets/ab").rmdir()
    write_marker()
    with pytest.raises(CommandError, match="contains the file “installed”"):
        refuse_lost_database()


@contextmanager
def started(folder: Path, *line: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a command that starts a site. Yield process and address once a page answers; leave nothing running."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/healthz"
    env = os.environ | {
        "PORT": str(port), "DATA_DIR": str(folder / "data"), "RESULTS_DIR": str(folder / "results"), "SAMPLES": "0",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD, **database_of(folder),
    }  # fmt: skip
    with (folder / "site.log").open("wb") as log:
        first = subprocess.Popen(line, env=env, cwd=settings.BASE_DIR, stdout=log, stderr=log, start_new_session=True)
    try:
        eventually(lambda: urllib.request.urlopen(address, timeout=2).status == 200, 60)
        yield first, address
    finally:
        for process in processes_of(folder):
            with suppress(psutil.Error):
                process.terminate()
        psutil.wait_procs(processes_of(folder), timeout=30)
        first.wait(30)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return every process of the installation in this folder."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DATA_DIR") == str(folder / "data"):
                processes.append(process)
    return processes


# `make test` runs these tests, and a make inside a make would say which folder it enters.
MAKE = ("make", "--no-print-directory", "--old-file=setup", f"MANAGE={sys.executable} manage.py")


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("make"), reason="the Makefile is for make")
def test_kill_9_of_make_ends_the_site(tmp_path: Path) -> None:
    with started(tmp_path, *MAKE, "start") as (make, _address):
        assert len(processes_of(tmp_path)) > 5
        make.kill()
        eventually(lambda: not processes_of(tmp_path), 30)
    assert "has ended, so everything ends" in (tmp_path / "site.log").read_text()


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("make"), reason="Linux tells of a parent's death")
def test_kill_9_of_make_ends_make_serve(tmp_path: Path) -> None:
    copy_migrated_database(tmp_path / "data")
    env = os.environ | {"DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": "", "SERVE_PORT": str(free_port())}
    make = subprocess.Popen([*MAKE, "serve"], env=env, cwd=settings.BASE_DIR, stdout=subprocess.PIPE, text=True)
    assert make.stdout and "/predict" in make.stdout.readline()
    make.kill()
    make.wait()
    eventually(lambda: not processes_of(tmp_path), 30)


@pytest.mark.process
def test_site_in_the_background_outlives_its_shell_and_its_terminal(tmp_path: Path) -> None:
    line = f"nohup {sys.executable} {MANAGE} start & exit"
    with started(tmp_path, "bash", "-c", line) as (shell, address):
        shell.wait(10)
        supervisor = next(
            p for p in processes_of(tmp_path) if "start" in p.cmdline() and p.parent() not in processes_of(tmp_path)
        )
        supervisor.send_signal(signal.SIGHUP)  # as the kernel sends when the terminal is closed
        time.sleep(1)
        assert supervisor.is_running() and urllib.request.urlopen(address, timeout=5).status == 200
