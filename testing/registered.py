"""Registered models with random weights; nothing is trained."""

from pathlib import Path

from django.utils import timezone

from accounts.models import User
from datasets_app.models import Version
from experiments.models import ModelVersion, RegisteredModel

from .language_models import make_language_adapter


def register_language_model(
    owner: User, name: str, base: Path, data: Version | None = None, task: str = "causal_lm"
) -> ModelVersion:
    """Register a random adapter over the language model in the folder `base`. data: what it would have been trained on."""
    model = RegisteredModel.objects.create(
        name=name, owner=owner, base_model=base.name, updated_at=timezone.now(), task_type=task
    )
    version = ModelVersion.objects.create(
        model=model,
        number=1,
        author=owner,
        base_model=base.name,
        task_type=task,
        config={"task": task, "model": {"name": base.name}},
        dataset_version=data,
        dataset_name="" if data is None else str(data),
    )
    make_language_adapter(version.folder, base)
    model.latest = version
    model.save()
    return version
