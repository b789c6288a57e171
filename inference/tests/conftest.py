"""The model that was really trained, as an experiment."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import RunConfig
from experiments.models import Experiment


@pytest.fixture
def model(trained: Path, member: Any) -> Experiment:
    """The member's experiment `small`, ready to answer."""
    experiment = Experiment.objects.create(
        name="small", owner=member, dataset_name="tweets@1", base_model=RunConfig.parse({}).model.name, accuracy=0.5
    )
    shutil.copytree(trained, experiment.folder)
    return experiment


@pytest.fixture(scope="session")
def sentences(tweets: Path) -> list[str]:
    """Twelve real tweets."""
    return pl.read_csv(tweets)["text"].head(12).to_list()
