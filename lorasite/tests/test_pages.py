"""Every page opens for those who may see it."""

from pathlib import Path
from typing import Any

import pytest

PAGES = ["/", "/datasets/", "/datasets/new/", "/train/", "/experiments/", "/predict/", "/api/docs", "/api/schema"]


@pytest.mark.parametrize("path", PAGES)
def test_page_answers_a_signed_in_member(client: Any, member: Any, path: str) -> None:
    client.force_login(member)
    answer = client.get(path)
    assert answer.status_code == 200
    assert "unsafe-inline" not in answer["Content-Security-Policy"]


@pytest.mark.parametrize("path", PAGES[:6])
def test_page_sends_a_stranger_to_the_sign_in(client: Any, db: None, path: str) -> None:
    assert client.get(path)["Location"].startswith("/login/")


@pytest.mark.medium
def test_submitted_form_becomes_one_run_whose_page_is_for_its_owner(
    client: Any, member: Any, stranger: Any, tweets_csv: Path
) -> None:
    from testing.datasets import store_dataset
    from training.models import Task

    store_dataset(member, "tweets", tweets_csv)
    client.force_login(member)
    form = client.get("/train/?dataset=tweets@1").context["form"]
    form = {field.html_name: field.value() or "" for field in form} | {"experiment_name": "first"}
    wrong = client.post("/train/", form | {"lora.r": "0"})
    assert wrong.status_code == 400 and wrong.context["form"].errors.keys() == {"lora.r"}
    first, second = client.post("/train/", form), client.post("/train/", form)
    task = Task.objects.get()
    assert first["Location"] == second["Location"] == f"/runs/{task.pk}/"
    assert b"first" in client.get(f"/runs/{task.pk}/").content
    assert client.get("/experiments/first/?tab=log")["Location"] == f"/runs/{task.pk}/?tab=log"
    client.force_login(stranger)
    assert client.get(f"/runs/{task.pk}/").status_code == 404
