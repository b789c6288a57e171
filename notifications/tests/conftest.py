from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accounts.models import User
from experiments.models import Experiment
from notifications.models import Delivery, Event
from notifications.services import save_preferences
from testing.experiments import row
from training.models import Status, Task

from .servers import Hook, serving

EndRun = Callable[..., Delivery | None]


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    with serving(server):
        yield server


@pytest.fixture
def hooked(hook: Hook, member: User, settings: Any) -> str:
    """The member's webhook, which this installation allows, is called for every event. Returns its secret."""
    settings.WEBHOOK_HOSTS = ["127.0.0.1"]
    url = f"http://127.0.0.1:{hook.server_address[1]}/hooks/7?of=lorasite"
    saved = save_preferences(
        user=member, mail_events=[], webhook_events=list(Event), webhook_url=url, language="zh-hant"
    )
    return saved.webhook_secret


@pytest.fixture
def end_run(member: User) -> EndRun:
    """end_run("mine", "SUCCESS") ends a run of the member and returns the message about it, if there is one."""

    def end(name: str, status: Status, *, learned: bool | None = None, **changes: Any) -> Delivery | None:
        experiment = row(member, name, accuracy=0.8)
        Experiment.objects.filter(pk=experiment.pk).update(learned=learned)
        Task.objects.filter(experiment=experiment).update(status=Status.STARTED)
        experiment.task.move(status, frm=[Status.STARTED], attempt=0, **changes)
        return Delivery.objects.filter(facts__name=name).first()

    return end
