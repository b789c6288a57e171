"""The pages in Traditional Chinese."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po
from django.conf import settings
from django.test import Client

ROOT = Path(settings.BASE_DIR)
CATALOGUE = Path("locale/zh_Hant/LC_MESSAGES/django.po")
PLACEHOLDER = re.compile(r"%\(\w+\)[.\d]*[a-z]|%[sd]|\{\w+[^}]*\}")
MAKE_MESSAGES = re.search(r"\$\(MANAGE\) (makemessages .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))

needs_gettext = pytest.mark.skipif(not shutil.which("msgfmt"), reason="needs Debian's gettext")


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale="zh_Hant")


def is_translated(message: Message) -> bool:
    return all(message.string) if isinstance(message.string, tuple) else bool(message.string)


@pytest.mark.slow
@needs_gettext
def test_every_sentence_is_in_the_catalogue_and_translated(tmp_path: Path) -> None:
    """`make messages`, run on a copy of the sources, adds nothing and leaves nothing to translate."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    ignore = shutil.ignore_patterns("tests", "__pycache__")
    for name in (*packages, "templates", "locale"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("manage.py", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    assert MAKE_MESSAGES
    command = [sys.executable, "manage.py", *MAKE_MESSAGES[1].split()]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    wanted, stored = read(tmp_path / CATALOGUE), read(ROOT / CATALOGUE)
    missing = [m.id for m in wanted if m.id and not stored.get(m.id, context=m.context)]
    untranslated = [m.id for m in stored if m.id and (m.fuzzy or not is_translated(m))]
    assert not missing and not untranslated, "Run `make messages`, then translate what is empty or fuzzy."


def test_placeholders_are_the_same() -> None:
    for message in read(ROOT / CATALOGUE):
        if message.id:
            english = message.id[-1] if isinstance(message.id, tuple) else message.id
            chinese = message.string[0] if isinstance(message.string, tuple) else message.string
            assert set(PLACEHOLDER.findall(str(english))) == set(PLACEHOLDER.findall(str(chinese))), english


@needs_gettext
def test_compiled_catalogue_is_that_of_the_text(tmp_path: Path) -> None:
    compiled = tmp_path / "django.mo"
    subprocess.run(["msgfmt", "--check-format", "-o", str(compiled), str(ROOT / CATALOGUE)], check=True, timeout=60)
    assert (ROOT / CATALOGUE).with_suffix(".mo").read_bytes() == compiled.read_bytes(), "Run `make messages`."


@pytest.mark.medium
@pytest.mark.django_db
def test_pages_speak_chinese(client: Client, admin: Any) -> None:
    client.post("/login/", {"username": "nobody", "password": "wrong"})  # an entry that says refused
    client.force_login(admin)
    for path, word in {
        "/": "總覽",
        "/datasets/": "資料集",
        "/train/": "開始訓練",
        "/experiments/": "訓練紀錄",
        "/system/": "正常",
        "/audit/": 'data-status="warning">被拒',
    }.items():
        page = client.get(path, HTTP_ACCEPT_LANGUAGE="zh-TW").content.decode()
        assert word in page and 'lang="zh-hant"' in page


@pytest.mark.django_db
def test_errors_of_the_api_speak_chinese(api: Any, member: Any) -> None:
    answer = api(member).get("/api/datasets/nowhere", HTTP_ACCEPT_LANGUAGE="zh-TW").json()
    assert "找不到" in answer["detail"]
