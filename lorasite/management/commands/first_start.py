from typing import Any

from django.core.management.base import BaseCommand

from accounts.models import User
from lorasite import first_start


class Command(BaseCommand):
    help = "Fill an empty installation: an admin, sample datasets, a sample run. Does nothing where an account exists."

    def handle(self, *args: Any, **options: Any) -> None:
        if not User.objects.exists():
            first_start.prepare()
