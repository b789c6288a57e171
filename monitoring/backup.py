"""Back up the installation into a folder, and compare the database with the stored files: backup() and differences()."""

import logging
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from django.db import connection
from django.utils.translation import gettext as _

from audit.services import record, verify
from datasets_app.models import Version
from datasets_app.versions import canonical
from engine.errors import CheckpointDamagedError, DiskError
from engine.storage import copy_tree, verify_folder, write_folder
from experiments.models import Experiment, ModelExport, ModelVersion
from web.errors import ConflictError, InvalidError
from work.paths import datasets_dir, exports_dir, models_dir, results_dir, secret_key_file

log = logging.getLogger(__name__)

PG_DUMP_VARIABLES = {
    "PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that a row names and the disk does not have, or the reverse."""

    kind: str  # dataset, model or audit
    name: str
    what: str  # missing, changed, unknown or broken
    reason: str


def backup(target: Path) -> Path:
    """Copy database, dataset versions, registered models, results and the secret key into a new folder.

    The folder is either complete or absent. The database is copied first: files never change once they are written, so
    every file that a copied row names can still be copied afterwards. It may run while the installation works. Exports are left
    out, because they can be made again.
    """
    if target.exists():
        raise InvalidError(_("%(folder)s already exists. Name a new folder.") % {"folder": target})
    record("system.backup", folder=target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_folder(target, _copy_installation, mode=0o700)  # the secret key is in it
    except (OSError, DiskError, sqlite3.Error) as error:
        message = _("The backup could not be written (%(reason)s). Nothing incomplete was left behind.")
        raise ConflictError(message % {"reason": error.__cause__ or error}) from None
    return target


def _copy_installation(draft: Path) -> None:
    (draft / "data").mkdir()
    if connection.vendor == "sqlite":
        database = connection.settings_dict["NAME"]
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(draft / "data/db.sqlite3")) as copy:
            source.backup(copy)
    else:
        dump_postgresql(draft / "database.dump")
    for name, source_folder in {
        "data/datasets": datasets_dir(), "data/models": models_dir(), "results": results_dir(),
    }.items():  # fmt: skip
        # A run may delete files meanwhile, such as an older checkpoint. No row needs them.
        copy_tree(
            source_folder, draft / name, on_missing=lambda path: log.info("%s was removed during the backup.", path)
        )
    if secret_key_file().exists():
        shutil.copy2(secret_key_file(), draft / "data")


def dump_postgresql(target: Path) -> None:
    """Write a dump of the database for pg_restore; raise ConflictError if pg_dump is missing or fails."""
    program = shutil.which("pg_dump")
    if program is None:
        raise ConflictError(
            _(
                "pg_dump is not installed. Install PostgreSQL's client programs, or dump the database on the machine where "
                "it runs."
            )
        )
    # In the environment, because other users of the machine can read the arguments of a process.
    parameters = connection.get_connection_params()
    environment = {name: str(parameters[key]) for name, key in PG_DUMP_VARIABLES.items() if parameters.get(key)}
    command = [program, "--format=custom", f"--file={target}"]
    dump = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if dump.returncode:
        raise ConflictError(_("pg_dump failed: %(reason)s") % {"reason": dump.stderr.strip()[:500]})


def differences() -> Iterator[Difference]:
    """Compare every row with its files by hash, then every file with the rows, then check the audit log's chain."""
    yield from compare_datasets()
    yield from compare_models()
    yield from find_unknown_files()
    verdict = verify()
    if verdict.broken:
        reason = _("The hash chain is broken at this entry. Earlier entries are intact.")
        yield Difference("audit", str(verdict.broken.pk), "broken", reason)


def compare_datasets() -> Iterator[Difference]:
    """Compare the rows of every dataset version with their hash."""
    for version in Version.objects.select_related("dataset").order_by("pk").iterator():
        try:
            actual_hash = canonical.hash_rows(pl.read_parquet(version.path))
        except FileNotFoundError:
            yield Difference("dataset", str(version), "missing", _("The file with its rows is missing."))
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = _("The file with its rows cannot be read: %s") % error
            yield Difference("dataset", str(version), "changed", reason)
        else:
            if actual_hash != version.hash:
                reason = _("The rows are not those that were stored.")
                yield Difference("dataset", str(version), "changed", reason)


def compare_models() -> Iterator[Difference]:
    """Check the folders of models: those of finished runs, their checkpoints named in the metrics, and registered ones."""
    folders: list[tuple[str, Path]] = []
    for experiment in Experiment.objects.order_by("pk").iterator():
        if experiment.is_ready:
            checkpoints = [one for one in experiment.metrics.get("checkpoints", {}).values() if one]
            paths = sorted({str(checkpoint["path"]) for checkpoint in checkpoints})
            for folder in [experiment.final_model, *(experiment.folder / path for path in paths)]:
                folders.append((f"{experiment.name}/{folder.relative_to(experiment.folder)}", folder))
    for registered in ModelVersion.objects.select_related("model").order_by("pk").iterator():
        folders.append((str(registered), registered.folder))
    for name, folder in folders:
        if not folder.is_dir():
            yield Difference("model", name, "missing", _("The folder is missing."))
            continue
        try:
            verify_folder(folder)
        except CheckpointDamagedError as error:
            yield Difference("model", name, "changed", str(error))


def find_unknown_files() -> Iterator[Difference]:
    """List files that no row names: left over after an older database was restored, or added by hand."""
    hashes = set(Version.objects.values_list("hash", flat=True))
    for path in sorted(datasets_dir().glob("*/[!.]*.parquet")):
        if path.stem not in hashes:
            yield Difference("dataset", path.name, "unknown", _("No dataset version has these rows."))
    folders = {experiment.folder.name for experiment in Experiment.objects.only("name", "folder_name")}
    for folder in sorted(results_dir().glob("[!.]*")):
        if folder.is_dir() and folder.name not in folders:
            yield Difference("model", folder.name, "unknown", _("No experiment has this folder."))
    keys = {key.hex for key in ModelVersion.with_removed.values_list("key", flat=True)}
    for folder in sorted(models_dir().glob("[!.]*")):
        if folder.name not in keys:
            yield Difference("model", folder.name, "unknown", _("No registered model has these files."))
    exports = {key.hex for key in ModelExport.objects.values_list("pk", flat=True)}
    for file in sorted(exports_dir().glob("[!.]*")):
        if file.stem not in exports:
            yield Difference("model", file.name, "unknown", _("No export has this file."))
