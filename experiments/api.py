from django.db.models import QuerySet
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.permissions import require_admin

from .models import Experiment
from .selectors import experiment_for, search
from .serializers import ExperimentDetail, ExperimentRow


class _Experiments(ListAPIView[Experiment]):
    permission_classes = [IsAuthenticated]
    serializer_class = ExperimentRow

    def get_queryset(self) -> QuerySet[Experiment]:
        if getattr(self, "swagger_fake_view", False):
            return Experiment.objects.none()
        query = self.request.query_params
        return search(self.request.user, query.get("q", ""), query.get("status", ""), query.get("sort", "-created"))


class AllExperiments(_Experiments):
    """Every experiment; for admins."""

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        require_admin(request.user)


class MyExperiments(_Experiments):
    """The experiments that the caller owns or that are shared with the caller."""


class OneExperiment(RetrieveAPIView[Experiment]):
    serializer_class = ExperimentDetail
    queryset = Experiment.objects.none()
    lookup_field = "name"

    def get_object(self) -> Experiment:
        return experiment_for(self.request.user, self.kwargs["name"])
