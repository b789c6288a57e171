"""Taking the installation away as files, and holding its rows against its files: backup() and differences()."""

import logging
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from django.db import connection
from django.utils.translation import gettext as _

from audit.services import record, verify
from datasets_app.models import Version
from datasets_app.versions import canonical
from engine.errors import CheckpointDamagedError, DiskError
from engine.storage import copy_tree, verify_folder, write_folder
from experiments.models import Experiment, ModelVersion
from web.errors import ConflictError, InvalidError
from work.paths import datasets_dir, models_dir, results_dir, secret_key_file

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a row says and the disk does not hold, or the reverse. `what` is "missing", "changed", "unknown" or "broken"."""

    kind: str
    name: str
    what: str
    said: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def backup(target: Path) -> Path:
    """Database, dataset versions, registered models, results and the secret key in one new folder that is there whole or not at all.

    The database comes first: files never change once they are written, so what a row names is still there to be copied. It
    may run while the installation works.
    """
    if target.exists():
        raise InvalidError(_("%(folder)s is there already; name a new folder.") % {"folder": target})
    record("system.backup", folder=target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_folder(target, _fill, mode=0o700)  # it holds the secret key
    except (OSError, DiskError, sqlite3.Error) as error:
        said = _("The backup could not be written (%(reason)s); no half of it is left.")
        raise ConflictError(said % {"reason": error.__cause__ or error}) from None
    return target


def _fill(draft: Path) -> None:
    _dump_database(draft)
    copies = {"data/datasets": datasets_dir(), "data/models": models_dir(), "results": results_dir()}
    for name, source in copies.items():
        # What a run drops meanwhile, such as an older checkpoint, is not missed.
        copy_tree(source, draft / name, on_missing=lambda path: log.info("%s was removed while it was copied.", path))
    if secret_key_file().exists():
        shutil.copy2(secret_key_file(), draft / "data")


def _dump_database(draft: Path) -> None:
    (draft / "data").mkdir()
    if connection.vendor == "sqlite":
        path = connection.settings_dict["NAME"]
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(draft / "data" / "db.sqlite3")) as copy:
            source.backup(copy)
    else:
        _pg_dump(draft / "database.dump")


def _pg_dump(target: Path) -> None:
    about = connection.get_connection_params()
    asked = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname"}
    environment = {name: str(about[key]) for name, key in asked.items() if about.get(key)}
    program = shutil.which("pg_dump")
    if program is None:
        said = _(
            "pg_dump is not on this machine. Install PostgreSQL's client programs, or dump the database where it runs."
        )
        raise ConflictError(said)
    line = [program, "--format=custom", f"--file={target}"]
    found = subprocess.run(line, env=environment, capture_output=True, text=True)  # noqa: S603  the command is ours
    if found.returncode:
        raise ConflictError(_("pg_dump failed: %(reason)s") % {"reason": found.stderr.strip()[:500]})


def differences() -> Iterator[Difference]:
    """Walk every row against its files by hash, then every file against the rows, then the audit log's chain."""
    for version in Version.objects.select_related("dataset").order_by("pk").iterator():
        yield from _of_version(version)
    for experiment in Experiment.objects.order_by("pk").iterator():
        yield from _of_experiment(experiment)
    for registered in ModelVersion.objects.select_related("model").order_by("pk").iterator():
        yield from _of_folder(str(registered), registered.folder)
    yield from _unknown()
    verdict = verify()
    if verdict.broken:
        said = _("The chain is broken at this entry; those before it hold.")
        yield Difference("audit", str(verdict.broken.pk), "broken", said)


def _of_version(version: Version) -> Iterator[Difference]:
    import polars as pl

    try:
        actual_hash = canonical.hash_rows(pl.read_parquet(version.path))
    except FileNotFoundError:
        yield Difference("dataset", str(version), "missing", _("The file of its rows is not there."))
    except (OSError, pl.exceptions.PolarsError) as error:
        yield Difference("dataset", str(version), "changed", _("The file of its rows can't be read: %s") % error)
    else:
        if actual_hash != version.hash:
            yield Difference("dataset", str(version), "changed", _("The rows are not those that were stored."))


def _of_experiment(experiment: Experiment) -> Iterator[Difference]:
    """The model of a run that has succeeded, and the checkpoints that its metrics name."""
    if not experiment.is_ready:
        return
    kept = experiment.metrics.get("checkpoints", {}).values()
    names = sorted({str(checkpoint["path"]) for checkpoint in kept if checkpoint})
    for folder in [experiment.final_model, *(experiment.folder / name for name in names)]:
        yield from _of_folder(f"{experiment.name}/{folder.relative_to(experiment.folder)}", folder)


def _of_folder(place: str, folder: Path) -> Iterator[Difference]:
    if not folder.is_dir():
        yield Difference("model", place, "missing", _("The folder is not there."))
        return
    try:
        verify_folder(folder)
    except CheckpointDamagedError as error:
        yield Difference("model", place, "changed", str(error))


def _unknown() -> Iterator[Difference]:
    """Files that no row names: left by a restore of an older database, or put there by hand."""
    hashes = set(Version.objects.values_list("hash", flat=True))
    for path in sorted(datasets_dir().glob("*/[!.]*.parquet")):
        if path.stem not in hashes:
            yield Difference("dataset", path.name, "unknown", _("No dataset version has these rows."))
    names = set(Experiment.objects.values_list("name", flat=True))
    for folder in sorted(results_dir().glob("[!.]*")):
        if folder.is_dir() and folder.name not in names:
            yield Difference("model", folder.name, "unknown", _("No experiment has this name."))
    keys = {key.hex for key in ModelVersion.objects.values_list("key", flat=True)}
    for folder in sorted(models_dir().glob("[!.]*")):
        if folder.name not in keys:
            yield Difference("model", folder.name, "unknown", _("No registered model has these files."))
