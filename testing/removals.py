"""Let the time pass in which what was deleted on a page can be brought back."""

from datetime import timedelta

from django.utils import timezone

from accounts import removals
from accounts.models import Removal


def pass_time() -> None:
    Removal.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    removals.carry_out_due_removals()
