"""What can be done with several models of the list at once."""

from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpResponse
from django.views.decorators.http import require_POST

from accounts import removals
from accounts.http import SignedInRequest
from lists.bulk import BulkList, delete_action, respond, tag_names

from ..models import RegisteredModel


def models() -> QuerySet[RegisteredModel]:
    return RegisteredModel.objects.select_related("owner", "latest").prefetch_related("tags")


MODELS = BulkList(
    models,
    "experiments:models",
    {"delete": delete_action(lambda user, model: removals.remove(user=user, obj=model))},
    {
        "name": lambda model: model.name,
        "version": lambda model: model.latest.number,
        "summary": lambda model: model.summary,
        "language": lambda model: model.language,
        "base_model": lambda model: model.base_model,
        "dataset": lambda model: model.latest.dataset_name,
        "task_type": lambda model: model.task_type,
        "score_name": lambda model: model.score_name,
        "score": lambda model: model.score,
        "owner": lambda model: model.owner.username,
        "tags": tag_names,
        "note": lambda model: model.note,
        "updated_at": lambda model: model.updated_at,
    },
)


@login_required
@require_POST
def bulk(request: SignedInRequest) -> HttpResponse:
    return respond(request, MODELS)
