"""Which models there are to ask."""

from django.db.models import QuerySet

from experiments.models import Experiment


def with_model(experiments: QuerySet[Experiment]) -> QuerySet[Experiment]:
    """Those whose run has left a model, the best first."""
    return experiments.filter(accuracy__isnull=False).order_by("-accuracy", "name")
