"""What can be done with several datasets of the list at once."""

from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpResponse
from django.views.decorators.http import require_POST

from accounts.http import SignedInRequest
from lists.bulk import BulkList, delete_action, respond, tag_names

from . import services
from .models import Dataset


def datasets() -> QuerySet[Dataset]:
    return Dataset.objects.filter(versions__isnull=False).distinct().prefetch_related("versions", "tags", "owner")


DATASETS = BulkList(
    datasets,
    "datasets:list",
    {"delete": delete_action(lambda user, dataset: services.remove(user=user, dataset=dataset))},
    {
        "name": lambda dataset: dataset.name,
        "version": lambda dataset: dataset.latest.number,
        "rows": lambda dataset: dataset.latest.rows,
        "labels": lambda dataset: len(dataset.latest.labels),
        "kind": lambda dataset: dataset.latest.kind,
        "owner": lambda dataset: dataset.owner.username,
        "tags": tag_names,
        "note": lambda dataset: dataset.note,
        "created_at": lambda dataset: dataset.created_at,
    },
)


@login_required
@require_POST
def bulk(request: SignedInRequest) -> HttpResponse:
    return respond(request, DATASETS)
