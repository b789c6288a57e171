"""An SQLite database that has all migrations, made once and kept: they take each site that a test starts three seconds of CPU."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from django.apps import apps
from django.conf import settings

ROOT = Path(settings.BASE_DIR)


def migrated_database() -> Path:
    """Return where the database is kept. Its name changes with every file of the migrations, and with what ours import."""
    sources = [path for app in apps.get_app_configs() for path in sorted(Path(app.path).glob("migrations/*.py"))]
    sources += [ROOT / "accounts/usernames.py", ROOT / "audit/guard.py"]
    content = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return ROOT / ".pytest_cache/d/migrated" / f"{content}.sqlite3"


def keep_database(path: Path) -> None:
    """Keep a database that has all migrations, in place of the copies of other migrations."""
    kept = migrated_database()
    kept.parent.mkdir(parents=True, exist_ok=True)
    for old in kept.parent.glob("[0-9a-f]*.sqlite3"):  # not the draft of another process
        old.unlink(missing_ok=True)
    draft = kept.with_name(f"draft-{os.getpid()}")
    shutil.copyfile(path, draft)
    draft.replace(kept)


def copy_migrated_database(data: Path) -> None:
    """Copy the database into the DATA_DIR of a site that does not exist yet; make it first where none is kept."""
    if not migrated_database().exists():
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"DATA_DIR": folder, "RESULTS_DIR": folder}
            subprocess.run([sys.executable, ROOT / "manage.py", "migrate", "-v0"], env=environment, check=True)
            keep_database(Path(folder) / "db.sqlite3")
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(migrated_database(), data / "db.sqlite3")
