"""Every page answers, to those who may see it."""

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


def test_submitted_form_becomes_one_run_whose_page_is_for_its_owner(
    client: Any, member: Any, stranger: Any, tweets_csv: Path
) -> None:
    from datasets_app.services import create_version
    from training.models import Task

    create_version(user=member, name="tweets", file=tweets_csv, filename="tweets.csv")
    client.force_login(member)
    form = {
        "token": "one", "experiment_name": "first", "dataset_name": "tweets@1", "num_train_epochs": "1",
        "model_name": "sentence-transformers/all-MiniLM-L6-v2", "learning_rate": "0.001", "r": "8", "lora_alpha": "16",
        "per_device_train_batch_size": "32", "max_length": "64", "seed": "42",
    }  # fmt: skip
    wrong = client.post("/train/", form | {"r": "0"})
    assert wrong.status_code == 200 and wrong.context["form"].errors.keys() == {"r"}
    first, second = client.post("/train/", form), client.post("/train/", form)
    task = Task.objects.get()
    assert first["Location"] == second["Location"] == f"/runs/{task.pk}/"
    assert b"first" in client.get(f"/runs/{task.pk}/").content
    assert client.get("/experiments/first/").status_code == 200
    client.force_login(stranger)
    assert client.get(f"/runs/{task.pk}/").status_code == 404
