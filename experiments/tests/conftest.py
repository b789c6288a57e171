from typing import Any

import pytest
from django.test import Client

from experiments.models import Experiment
from testing.belongings import belongings
from testing.experiments import METRICS
from training.models import Status, Task


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


@pytest.fixture
def finished(member: Any) -> Experiment:
    """The member's finished experiment `mine-too`."""
    owned = belongings(member, "mine-too")
    Task.objects.filter(pk=owned.task.pk).update(status=Status.SUCCESS)
    Experiment.objects.filter(pk=owned.experiment.pk).update(metrics=METRICS, score=0.8, accuracy=0.8, macro_f1=0.79)
    return Experiment.objects.get(pk=owned.experiment.pk)
