"""A site that others can reach does not start with unsafe settings."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.core.checks import run_checks

from lorasite.checks import TAG

GOOD = "k3" * 8 + "jQx9_vT2-mLw8pZr"
MANAGE = str(Path(project.BASE_DIR) / "manage.py")


def ids(settings: Any, **changes: Any) -> set[str | None]:
    safe = {"HOST": "0.0.0.0", "DEBUG": False, "SECRET_KEY": GOOD, "ALLOWED_HOSTS": ["lora.example.org"]}
    for name, value in {**safe, "SESSION_COOKIE_SECURE": True, **changes}.items():
        setattr(settings, name, value)
    return {message.id for message in run_checks(tags=[TAG])}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"DEBUG": True}, {"lorasite.E001"}),
        ({"SECRET_KEY": "django-insecure-" + GOOD}, {"lorasite.E002"}),
        ({"SECRET_KEY": "short"}, {"lorasite.E002"}),
        ({"SECRET_KEY": "a" * 60}, {"lorasite.E002"}),
        ({"ALLOWED_HOSTS": ["*"]}, {"lorasite.E003"}),
        ({"SESSION_COOKIE_SECURE": False}, {"lorasite.W001"}),
        ({"HOST": "192.0.2.1", "DEBUG": True}, {"lorasite.E001"}),
        ({"HOST": "lora.example.org", "DEBUG": True}, {"lorasite.E001"}),
    ],
)
def test_exposed_site_is_checked(settings: Any, changes: dict[str, Any], expected: set[str]) -> None:
    assert ids(settings, **changes) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_local_site_may_have_unsafe_settings(settings: Any, host: str) -> None:
    assert ids(settings, HOST=host, DEBUG=True, SECRET_KEY="x", ALLOWED_HOSTS=["*"]) == set()


def manage(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"DATA_DIR": str(folder), "SAMPLES": "0", **environment}
    return subprocess.run([sys.executable, MANAGE, *arguments], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_start_is_refused_in_one_line(tmp_path: Path) -> None:
    ended = manage("start", folder=tmp_path, HOST="0.0.0.0", DEBUG="true", PORT="8999")
    assert ended.returncode == 1 and "lorasite.E001" in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "db.sqlite3").exists()


@pytest.mark.slow
def test_web_server_is_refused_too(tmp_path: Path) -> None:
    env = os.environ | {"DATA_DIR": str(tmp_path), "HOST": "0.0.0.0", "ALLOWED_HOSTS": "*"}
    command = [sys.executable, "-c", "import lorasite.wsgi"]
    ended = subprocess.run(command, env=env, cwd=project.BASE_DIR, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "lorasite.E003" in ended.stderr


@pytest.mark.slow
def test_djangos_own_deployment_checks_find_nothing_behind_https(tmp_path: Path) -> None:
    facts = {"HOST": "0.0.0.0", "ALLOWED_HOSTS": "lora.example.org", "BEHIND_HTTPS": "true", "TRUSTED_PROXIES": "1"}
    ended = manage("check", "--deploy", "--fail-level", "WARNING", folder=tmp_path, **facts)
    assert ended.returncode == 0 and "no issues" in ended.stdout, ended.stderr


REQUEST_SCRIPT = """
import django; django.setup()
from django.test import Client
for proto in ("http", "https"):
    response = Client().get("/login/", headers={"X-Forwarded-Proto": proto, "Host": "lora.example.org"})
    secure = [bool(cookie["secure"]) for cookie in response.cookies.values()]
    print(response.status_code, response.get("Location"), response.get("Strict-Transport-Security"), secure)
"""


@pytest.mark.slow
def test_behind_https_everything_is_https(tmp_path: Path) -> None:
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "lorasite.settings", "DATA_DIR": str(tmp_path)}
    env |= {"BEHIND_HTTPS": "true", "ALLOWED_HOSTS": "lora.example.org"}
    command = [sys.executable, "-c", REQUEST_SCRIPT]
    ended = subprocess.run(command, env=env, cwd=project.BASE_DIR, capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == [
        "301 https://lora.example.org/login/ None []",
        "200 None max-age=31536000 [True]",
    ], ended.stderr


@pytest.mark.parametrize(
    ("proxies", "header", "address"),
    [
        (0, "198.51.100.7", "127.0.0.1"),
        (1, "198.51.100.7", "198.51.100.7"),
        (1, "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        (2, "203.0.113.9, 198.51.100.7", "203.0.113.9"),
        (2, "198.51.100.7", "198.51.100.7"),
        (1, "", "127.0.0.1"),
        (1, "nonsense", None),
    ],
)
def test_client_address_is_the_one_that_the_own_proxies_saw(
    settings: Any, client: Any, member: Any, proxies: int, header: str, address: str | None
) -> None:
    from audit.models import Entry

    settings.TRUSTED_PROXIES = proxies
    form = {"username": "member", "password": "correct-horse-9"}
    client.post("/login/", form, headers={"X-Forwarded-For": header} if header else {})
    assert Entry.objects.get(action="user.login").address == address
