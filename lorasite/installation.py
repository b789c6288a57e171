"""Tells a new installation from one whose database was lost: files in DATA_DIR say that there was one."""

from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from accounts.models import User

ROOMS = ("datasets", "models")  # RESULTS_DIR proves nothing: another installation may share it
MARK = "installed"
SAID = "A database with accounts belongs to this folder; `manage.py start` makes no new one here by itself.\n"


def refuse_lost_database() -> None:
    """CommandError where the database has no account, though there was one; asked before anything is made."""
    trouble, left = what_is_missing(), remains()
    if trouble and left:
        raise CommandError(
            f"{trouble}, but {settings.DATA_DIR} holds {' and '.join(left)} of an installation that was here before. "
            "Nothing was changed. Put the database back from a backup (docs/deploy.md), or begin anew with "
            "`.venv/bin/python manage.py start --new`: the old files stay, but no page will show them."
        )


def what_is_missing() -> str:
    """What an installation's database lacks, for a person; empty where it has an account."""
    sqlite = Path(connection.settings_dict["NAME"]) if connection.vendor == "sqlite" else None
    if sqlite and not sqlite.exists():  # to ask SQLite would make it
        return f"The database {sqlite} is not there"
    if sqlite and not sqlite.stat().st_size:
        return f"The database {sqlite} is empty (0 bytes)"
    place = sqlite or connection.settings_dict["NAME"]
    tables = connection.introspection.table_names()
    if User._meta.db_table in tables:
        return "" if User.objects.exists() else f"The database {place} holds no account"
    if sqlite and tables:
        raise CommandError(
            f"The database {sqlite} belongs to another program: it has tables, but none of Lorasite's. Nothing was "
            "changed. Move it away and put Lorasite's back from a backup (docs/deploy.md), or set another DATA_DIR."
        )
    return f"The database {place} holds no table of Lorasite's"


def remains() -> list[str]:
    """What says that this DATA_DIR had a database with accounts."""
    rooms = [f"{room}/" for room in ROOMS if any(Path(settings.DATA_DIR, room).glob("*"))]
    return rooms or ([f"the file “{MARK}”"] if _mark().exists() else [])


def mark() -> None:
    if not _mark().exists():
        _mark().write_text(SAID)


def _mark() -> Path:
    return Path(settings.DATA_DIR) / MARK
