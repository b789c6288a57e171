"""Create one of everything that a person can own, as rows; nothing is trained."""

from dataclasses import dataclass

import polars as pl
from django.utils import timezone

from accounts.models import User
from datasets_app.models import Dataset, DataTask, Suspect, Version
from datasets_app.versions import canonical
from experiments.models import Experiment, ModelVersion, RegisteredModel
from training.models import Stage, Status, Task


@dataclass
class Belongings:
    dataset: Dataset
    version: Version
    experiment: Experiment
    task: Task
    data_task: DataTask
    model: RegisteredModel


def belongings(owner: User, name: str = "mine") -> Belongings:
    """Create a dataset with its rows on disk, a cancelled run on it, a search for wrong labels, and a registered model.

    Dataset, run and model have the same name; the model's files have no content.
    """
    frame = pl.DataFrame({"text": ["a fine day", "a poor day"], "label": ["good", "bad"], "row": [1, 2]})
    dataset = Dataset.objects.create(name=name, owner=owner)
    version = Version.objects.create(
        dataset=dataset, number=1, hash=canonical.hash_rows(frame), author=owner, rows=2, labels={"bad": 1, "good": 1}
    )
    canonical.store(frame, version.path)
    experiment = Experiment.objects.create(
        name=name, owner=owner, version=version, dataset_name=str(version), base_model="some/model", config={}
    )
    experiment.folder.mkdir(parents=True)
    (experiment.folder / "config.yaml").write_text("experiment_name: mine\n")
    task = Task.objects.create(owner=owner, experiment=experiment, status=Status.CANCELLED, stage=Stage.TRAINING)
    data_task = DataTask.objects.create(owner=owner, kind=DataTask.Kind.NOISE, name=name, version=version)
    Suspect.objects.create(
        version=version, rank=1, row=1, text="a fine day", label="good", predicted="bad", given_probability=0.2,
        predicted_probability=0.8,
    )  # fmt: skip
    return Belongings(dataset, version, experiment, task, data_task, registered(owner, name))


def registered(owner: User, name: str) -> RegisteredModel:
    now = timezone.now()
    model = RegisteredModel.objects.create(name=name, owner=owner, base_model="some/model", updated_at=now, words=name)
    facts = {
        "experiment_name": name,
        "dataset_name": f"{name}@1",
        "base_model": "some/model",
        "labels": ["bad", "good"],
    }
    model.latest = ModelVersion.objects.create(model=model, number=1, author=owner, **facts)
    model.latest.folder.mkdir(parents=True)
    (model.latest.folder / "adapter_config.json").write_text("{}")
    model.save()
    return model
