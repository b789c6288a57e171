"""People with every role, and an object of each kind that one of them owns."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from accounts.models import Role
from accounts.permissions import grant_access
from accounts.services import invite, make_token
from datasets_app.reading import uploads
from experiments.models import ModelExport, ModelVersion
from testing.belongings import belongings
from testing.people import make_user
from training.models import Status, Task


@pytest.fixture
def people(db: None) -> dict[str, Any]:
    roles = {"viewer": "viewer", "stranger": "member", "reader": "viewer", "owner": "member", "admin": "admin"}
    return {"anonymous": None} | {name: make_user(name, role) for name, role in roles.items()}


@pytest.fixture
def arguments(people: dict[str, Any], tweets_csv: Any) -> dict[str, str]:
    """Values for the placeholders of addresses, such as <name> and <task_id>."""
    owned, waiting = belongings(people["owner"], "private"), belongings(people["owner"], "waiting")
    for shared in (owned, waiting):
        for thing in (shared.dataset, shared.experiment, shared.model):
            grant_access(thing, to=people["reader"])
    Task.objects.filter(pk=waiting.task.pk).update(status=Status.PENDING)
    version = ModelVersion.objects.get(model=owned.model)
    ModelExport.objects.create(version=version, author=people["owner"], format="safetensors")
    upload = SimpleUploadedFile("mine.csv", tweets_csv.read_bytes())
    token = uploads.keep_upload(user=people["owner"], files=[upload]).token
    ids = {
        "task_id": str(owned.task.pk),
        "waiting": str(waiting.task.pk),
        "data_task": str(owned.data_task.pk),
        "rank": "1",
        "alias": "champion",
        "format": "safetensors",
        "export_format": "safetensors",
    }
    api_token, _secret = make_token(user=people["owner"], name="script", scopes=["read"], days=1)
    invitation, link = invite(user=people["admin"], role=Role.VIEWER)
    ids |= {"pk": str(api_token.pk), "open": str(invitation.pk), "invitation": link, "person": str(people["viewer"].pk)}
    spare = {"secret": "ls_inv_none", "uidb64": "MQ", "username": "viewer", "kind": "dataset", "provider_id": "oidc"}
    return {"name": "private", "path": "config.yaml", "token": token, **ids, **spare}
