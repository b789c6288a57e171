"""Other users of the machine cannot read the installation's files."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from lorasite.file_permissions import restrict_file_permissions
from testing.site import running_site


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o777:o}"


@pytest.mark.process
def test_start_closes_an_open_folder_and_writes_files_for_its_user_only(tmp_path: Path) -> None:
    for name in ("data", "results"):
        (tmp_path / name).chmod(0o755)
    with running_site(tmp_path, is_first_start=True):
        written = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        wrong = {str(path): mode(path) for path in written if path.stat().st_mode & 0o077}
        assert mode(tmp_path / "data") == "700" and mode(tmp_path / "data" / "secret_key") == "600" and not wrong
    log = (tmp_path / "site.log").read_text()
    assert "could be read by others on this machine (mode 0755); now only by its user" in log
    assert "RESULTS_DIR" in log and mode(tmp_path / "results") == "755"


@pytest.mark.slow
def test_any_command_creates_the_folder_for_its_user_only(tmp_path: Path) -> None:
    environment = os.environ | {"DATA_DIR": str(tmp_path / "new")}
    manage = str(Path(settings.BASE_DIR) / "manage.py")
    subprocess.run([sys.executable, manage, "check"], env=environment, check=True, capture_output=True, timeout=60)
    assert mode(tmp_path / "new") == "700"


def test_folder_of_another_user_is_left_unchanged_and_reported(settings: Any, monkeypatch: Any) -> None:
    settings.DATA_DIR.chmod(0o2775)
    settings.RESULTS_DIR.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(settings.DATA_DIR).st_uid + 1)
    (line,) = restrict_file_permissions()
    assert "belongs to another user" in line and mode(settings.DATA_DIR) == "775"
    settings.DATA_DIR.chmod(0o700)
    assert list(restrict_file_permissions()) == []
