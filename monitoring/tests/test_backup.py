"""Back up, damage the files, list the damage with verify, restore the backup, verify again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from audit import guard
from audit.models import Entry
from datasets_app.models import Version
from experiments.models import Experiment, ModelVersion
from experiments.registry.services import register
from monitoring.backup import backup, differences
from testing.exports import store_export
from testing.site import database_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def installation(learnt: Experiment, member: Any) -> Experiment:
    """A dataset version, an experiment and a registered model with an export, each with its files."""
    store_export(register(user=member, experiment=learnt, name="mood"), member)
    return learnt


def damage(experiment: Experiment) -> list[tuple[str, str, str]]:
    """Cause each kind of damage; return the differences that verify should list."""
    version = Version.objects.get()
    version.path.rename(version.path.with_stem("0" * 64))
    adapter = experiment.final_model / "adapter_model.safetensors"
    content = bytearray(adapter.read_bytes())
    content[-1] ^= 1
    adapter.write_bytes(content)
    checkpoint = experiment.metrics["checkpoints"]["best"]["path"]
    shutil.rmtree(experiment.folder / checkpoint)
    (Path(settings.RESULTS_DIR) / "by-hand").mkdir()
    (ModelVersion.objects.get().folder / "lorasite.json").unlink()
    (Path(settings.DATA_DIR) / "models" / "left-over").mkdir()
    (Path(settings.DATA_DIR) / "exports" / "0123.zip").write_bytes(b"")
    return [
        ("dataset", "tweets@1", "missing"),
        ("model", "small/artifacts/final_model", "changed"),
        ("model", f"small/{checkpoint}", "missing"),
        ("model", "mood@1", "changed"),
        ("dataset", f"{'0' * 64}.parquet", "unknown"),
        ("model", "by-hand", "unknown"),
        ("model", "left-over", "unknown"),
        ("model", "0123.zip", "unknown"),
    ]


def test_whole_installation_has_no_differences(installation: Experiment) -> None:
    assert list(differences()) == []


def test_every_kind_of_damage_is_listed_by_name(installation: Experiment, capsys: Any) -> None:
    wanted = damage(installation)
    assert [(difference.kind, difference.name, difference.what) for difference in differences()] == wanted
    with pytest.raises(SystemExit) as ended:
        call_command("verify", "--json")
    assert ended.value.code == 1 and len(json.loads(capsys.readouterr().out)) == len(wanted)


def test_rows_that_were_changed_on_disk_are_found(installation: Experiment, tmp_path: Path) -> None:
    import polars as pl

    path = Version.objects.get().path
    rows = pl.read_parquet(path)
    rows.with_columns(pl.col("label").reverse()).write_parquet(path)
    assert [difference.what for difference in differences()] == ["changed"]
    path.write_bytes(b"not a Parquet file")
    assert [difference.what for difference in differences()] == ["changed"]


def test_changed_audit_entry_is_a_difference(installation: Experiment) -> None:
    guard.remove(connection)
    Entry._base_manager.filter(pk=Entry.objects.earliest("pk").pk).update(username="nobody")
    assert [difference.kind for difference in differences()] == ["audit"]


@pytest.mark.slow
def test_restored_backup_is_a_whole_installation_again(installation: Experiment, tmp_path: Path) -> None:
    folder = backup(tmp_path / "folder")
    damage(installation)
    call_command("verify", "--backup", str(folder))
    restored = tmp_path / "restored"
    environment = restore(folder, restored)
    line = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "verify"]
    verification = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert (verification.returncode, verification.stdout) == (0, "All stored files match the database.\n"), (
        verification.stderr
    )


def restore(folder: Path, home: Path) -> dict[str, str]:
    """Restore a backup as docs/deploy.md says; return the environment of the restored installation."""
    shutil.copytree(folder / "data", home / "data")
    shutil.copytree(folder / "results", home / "results")
    database = database_of(home) or {"DATABASE_URL": f"sqlite:///{home / 'data' / 'db.sqlite3'}"}
    if connection.vendor == "postgresql":
        line = ["pg_restore", "--no-owner", f"--dbname={database['DATABASE_URL']}", str(folder / "database.dump")]
        subprocess.run(line, check=True, capture_output=True)
    return os.environ | {"DATA_DIR": str(home / "data"), "RESULTS_DIR": str(home / "results"), **database}


def test_damaged_backup_is_reported(installation: Experiment, tmp_path: Path) -> None:
    folder = backup(tmp_path / "folder")
    (folder / "results" / "small" / "config.yaml").unlink()
    with pytest.raises(CommandError, match="does not hold"):
        call_command("verify", "--backup", str(folder))


def test_backup_never_replaces_anything(installation: Experiment, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=str(tmp_path)):
        call_command("backup", str(tmp_path))
    assert not (tmp_path / "manifest.json").exists()


def test_backup_is_readable_only_by_its_user(installation: Experiment, tmp_path: Path) -> None:
    """It contains the secret key and everyone's password hash."""
    assert backup(tmp_path / "copy").stat().st_mode & 0o777 == 0o700
