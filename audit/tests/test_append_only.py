"""An entry is written once: the models refuse to change it, and so does the database itself."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction

from audit import guard
from audit.models import AppendOnlyError, Entry
from audit.services import record, verify


@pytest.fixture
def entry(member: Any) -> Entry:
    return record("task.submit", user=member, obj=member)


def test_models_refuse_to_change_or_remove(entry: Entry) -> None:
    entry.action = "task.cancel"
    for attempt in (
        entry.save,
        entry.delete,
        Entry.objects.all().delete,
        lambda: Entry.objects.update(action="x"),
        lambda: Entry.objects.bulk_update([entry], ["action"]),
    ):
        with pytest.raises(AppendOnlyError):
            attempt()
    assert verify().holds and Entry.objects.get().action == "task.submit"


@pytest.mark.parametrize(
    "crime", ["UPDATE audit_entry SET action = 'x'", "DELETE FROM audit_entry", "UPDATE audit_entry SET hash = ''"]
)
def test_database_refuses_to_change_or_remove(entry: Entry, crime: str) -> None:
    guard.install(connection)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(crime)
    record("task.cancel", obj=entry)
    assert verify().holds and Entry.objects.count() == 2


def test_postgresql_refuses_to_empty_the_table(entry: Entry) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL has TRUNCATE")
    guard.install(connection)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("TRUNCATE audit_entry")


@pytest.mark.slow
def test_every_installation_has_the_guard_after_its_migrations(tmp_path: Path) -> None:
    env = os.environ | {"DATA_DIR": str(tmp_path), "DATABASE_URL": ""}
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "migrate", "-v0"]
    subprocess.run(command, env=env, check=True, timeout=120)
    with sqlite3.connect(tmp_path / "db.sqlite3") as database:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    assert names >= {"audit_no_update", "audit_no_delete"}


def test_action_whose_entry_cannot_be_written_is_not_done(member: Any, monkeypatch: Any) -> None:
    from accounts.models import Token
    from accounts.services import make_token

    def broken(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(Entry, "save", broken)
    with pytest.raises(DatabaseError):
        make_token(user=member, name="x", scopes=["read"], days=1)
    assert not Token.objects.exists()
