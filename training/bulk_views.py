"""What can be done with several runs of the list at once."""

from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from accounts.http import SignedInRequest
from experiments import compare
from experiments import services as experiments
from experiments.models import Experiment
from lists.bulk import Action, BulkList, back_to_list, delete_action, respond, tag_names, ticked_names

from . import services


def runs() -> QuerySet[Experiment]:
    return Experiment.objects.select_related("owner", "task").prefetch_related("tags").defer("metrics")


RUNS = BulkList(
    runs,
    "experiments:list",
    {
        "delete": delete_action(lambda user, run: experiments.remove(user=user, experiment=run)),
        "cancel": Action(
            lambda user, run: services.cancel(user=user, task=run.task),
            gettext_lazy("%(done)s cancelled."),
            gettext_lazy("%(done)s cancelled, %(refused)s not:"),
        ),
    },
    {
        "experiment": lambda run: run.name,
        "status": lambda run: run.task.status,
        "dataset": lambda run: run.dataset_name,
        "base_model": lambda run: run.base_model,
        "owner": lambda run: run.owner.username,
        "task_type": lambda run: run.task_type,
        "score_name": lambda run: run.score_name,
        "score": lambda run: run.score,
        "accuracy": lambda run: run.accuracy,
        "macro_f1": lambda run: run.macro_f1,
        "eval_loss": lambda run: run.eval_loss,
        "tokens_per_second": lambda run: run.tokens_per_second,
        "runtime_s": lambda run: run.runtime_s,
        "learned": lambda run: run.learned,
        "tags": tag_names,
        "note": lambda run: run.note,
        "created_at": lambda run: run.created_at,
    },
)


@login_required
@require_POST
def bulk(request: SignedInRequest) -> HttpResponse:
    """Compare the ticked runs, or do with each what `lists.bulk.respond` does."""
    if request.POST.get("action") != "compare":
        return respond(request, RUNS)
    names = ticked_names(request)
    if compare.FEWEST <= len(names) <= compare.MOST:
        return redirect(f"{reverse('experiments:compare')}?{urlencode({'name': names}, doseq=True)}")
    limits = {"fewest": compare.FEWEST, "most": compare.MOST}
    messages.error(request, _("Select %(fewest)s to %(most)s runs to compare them.") % limits)
    return back_to_list(request, RUNS)
