"""The pages in Traditional Chinese."""

import re
from typing import Any

import pytest
from django.test import Client

from lorasite import catalogue

PLACEHOLDER = re.compile(r"%\(\w+\)[.\d]*[a-z]|%[sd]|\{\w+[^}]*\}")


def test_every_sentence_is_in_the_catalogue_and_translated() -> None:
    stored = catalogue.stored()
    missing = [m.id for m in catalogue.wanted() if m.id and not stored.get(m.id)]
    empty = [m.id for m in stored if m.id and not catalogue.is_translated(m)]
    assert not missing and not empty, "python -m lorasite.catalogue, then translate what is empty"


def test_placeholders_are_the_same() -> None:
    for message in catalogue.stored():
        if message.id:
            said = message.id[-1] if isinstance(message.id, tuple) else message.id
            meant = message.string[0] if isinstance(message.string, tuple) else message.string
            assert set(PLACEHOLDER.findall(str(said))) == set(PLACEHOLDER.findall(str(meant))), said


def test_compiled_catalogue_is_that_of_the_text() -> None:
    assert catalogue.PO.with_suffix(".mo").read_bytes() == catalogue.compiled(catalogue.stored())


@pytest.mark.django_db
def test_pages_speak_chinese(client: Client, admin: Any) -> None:
    client.force_login(admin)
    for path, word in {
        "/": "目前的情況",
        "/datasets/": "資料集",
        "/train/": "開始訓練",
        "/experiments/": "實驗",
    }.items():
        page = client.get(path, HTTP_ACCEPT_LANGUAGE="zh-TW").content.decode()
        assert word in page and 'lang="zh-hant"' in page


@pytest.mark.django_db
def test_errors_of_the_api_speak_chinese(api: Any, member: Any) -> None:
    answer = api(member).get("/api/datasets/nowhere", HTTP_ACCEPT_LANGUAGE="zh-TW").json()
    assert "資料集" in answer["detail"] or "沒有" in answer["detail"]
