"""Tell a new installation from one whose database was lost: files in DATA_DIR show that there was a database."""

from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from accounts.models import User

# Filled only by an installation with accounts. RESULTS_DIR proves nothing: another installation may share it.
FOLDERS = ("datasets", "models")
MARKER = "installed"
MARKER_TEXT = (
    "A database with accounts belongs to this folder; `manage.py start` does not create a new one here by itself.\n"
)


def refuse_lost_database() -> None:
    """Raise CommandError if the database has no account, but files show that it had one. Creates nothing."""
    problem = find_database_problem()
    data_dir = Path(settings.DATA_DIR)
    evidence = [f"{name}/" for name in FOLDERS if any((data_dir / name).glob("*"))]
    if not evidence and (data_dir / MARKER).exists():
        evidence = [f"the file “{MARKER}”"]
    if problem and evidence:
        raise CommandError(
            f"{problem}, but {data_dir} contains {' and '.join(evidence)} of an earlier installation. Nothing was changed. "
            "Restore the database from a backup (docs/deploy.md), or start over with `.venv/bin/python manage.py start "
            "--new`: the old files stay, but no page shows them."
        )


def find_database_problem() -> str:
    """Return what the database lacks, as the beginning of a sentence; empty if it has an account."""
    sqlite_file = Path(connection.settings_dict["NAME"]) if connection.vendor == "sqlite" else None
    # Look at the file first: a connection would create it.
    if sqlite_file and not sqlite_file.exists():
        return f"The database {sqlite_file} does not exist"
    if sqlite_file and not sqlite_file.stat().st_size:
        return f"The database {sqlite_file} is empty (0 bytes)"
    database = sqlite_file or connection.settings_dict["NAME"]
    tables = connection.introspection.table_names()
    if User._meta.db_table in tables:
        return "" if User.objects.exists() else f"The database {database} has no account"
    if sqlite_file and tables:
        raise CommandError(
            f"The database {sqlite_file} belongs to another program: it has tables, but none of Lorasite's. Nothing was "
            "changed. Move it away and restore Lorasite's from a backup (docs/deploy.md), or set another DATA_DIR."
        )
    return f"The database {database} has no table of Lorasite's"


def write_marker() -> None:
    """Record in DATA_DIR that its database has accounts."""
    marker = Path(settings.DATA_DIR) / MARKER
    if not marker.exists():
        marker.write_text(MARKER_TEXT)
