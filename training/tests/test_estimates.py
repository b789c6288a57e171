"""Estimates of runs: measured once, shared by runs with the same speed, and compared with what a run took."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from training import estimates, services
from training.models import Status, Task, Timing
from web.errors import ConflictError, InvalidError

from .conftest import tiny
from .test_pages import form_of


@pytest.fixture
def estimate(member: Any, dataset: Any) -> Callable[..., estimates.Estimate]:
    def do(config: dict[str, Any], **options: Any) -> estimates.Estimate:
        return services.estimate(user=member, config=services.parse_config(config), **options)

    return do


@pytest.mark.slow
def test_estimate_of_a_run_is_compared_with_what_it_took(
    client: Client, member: Any, submit: Any, estimate: Any, run_worker: Callable[[], None]
) -> None:
    assert estimate(tiny()).forecast is None and estimates.past_error() is None
    run_worker()
    forecast = estimate(tiny("other", num_train_epochs=3, learning_rate=0.01)).forecast
    assert forecast.steps == 12 and forecast.seconds > 0 and forecast.memory_mb > 100
    assert Timing.objects.count() == 1
    task = submit(tiny("measured"))
    assert task.foreseen["seconds"] == estimate(tiny()).forecast.seconds < forecast.seconds
    run_worker()
    task.refresh_from_db()
    assert task.status == Status.SUCCESS and task.foreseen["took_seconds"] > 0
    past = estimates.past_error()
    assert past and past.runs == 1
    assert past.time_percent == round(100 * abs(task.foreseen["seconds"] / task.foreseen["took_seconds"] - 1))
    client.force_login(member)
    assert "Actual: " in client.get(reverse("training:run", args=[task.pk])).content.decode()


@pytest.mark.slow
def test_form_shows_the_estimate_once_it_is_measured(
    client: Client, member: Any, dataset: Any, run_worker: Callable[[], None]
) -> None:
    client.force_login(member)
    fields = form_of(client.get("/train/?dataset=tweets")) | {
        "do": "estimate", "data.train_samples": "64", "data.eval_samples": "32", "data.max_length": "16",
        "training.per_device_train_batch_size": "16", "lora.layers_to_transform": "[5]", "system.baseline": "false",
    }  # fmt: skip
    assert "as soon as a worker is free" in client.post("/train/", fields).content.decode()
    run_worker()
    page = client.post("/train/", fields | {"poll": "1"}).content.decode()
    assert "MiB of memory" in page and "once an estimated run has finished" in page
    assert not Task.objects.exists()


@pytest.mark.medium
def test_poll_gets_the_panel_alone_which_also_shows_mistakes(client: Client, member: Any, dataset: Any) -> None:
    client.force_login(member)
    fields = form_of(client.get("/train/?dataset=tweets")) | {"do": "estimate"}
    for value, expected in (("8", "as soon as a worker is free"), ("0", "LoRA rank (r)")):
        answer = client.post("/train/", fields | {"lora.r": value}, headers={"HX-Request": "true"})
        page = answer.content.decode()
        assert answer.status_code == 200 and expected in page and page.strip().startswith('<div id="estimate"')


@pytest.mark.medium
def test_failed_measurement_gives_the_reason_and_is_repeated_only_on_request(
    estimate: Any, run_worker: Callable[[], None]
) -> None:
    config = tiny() | {"data": tiny()["data"] | {"max_length": 8, "truncation": "refuse"}}
    estimate(config)
    run_worker()
    failed = estimate(config).measurement
    assert failed.status == Status.FAILURE and "longer than 8 tokens" in failed.error["message"]
    assert estimate(config, again=True).measurement.status == Status.PENDING


def test_a_person_has_few_measurements_at_once(estimate: Any) -> None:
    for batch in range(1, estimates.MOST_AT_ONCE + 1):
        estimate(tiny(per_device_train_batch_size=batch))
    with pytest.raises(ConflictError):
        estimate(tiny(per_device_train_batch_size=9))


def test_estimate_refuses_what_a_submit_would(estimate: Any) -> None:
    with pytest.raises(InvalidError):
        estimate(tiny() | {"data": {"dataset_name": "nowhere"}})
    assert not Timing.objects.exists()
