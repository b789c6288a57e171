from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.http import signed_in_user
from web.access import require_admin

from . import selectors
from .serializers import SystemSerializer


class System(APIView):
    @extend_schema(responses=SystemSerializer)
    def get(self, request: Request) -> Response:
        """Checks, queues, workers, disks and versions; for admins."""
        require_admin(signed_in_user(request))
        return Response(SystemSerializer(selectors.system()).data)
