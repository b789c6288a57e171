from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from accounts.models import User
from lorasite import first_start, installation


class Command(BaseCommand):
    help = "Fill an empty installation: an admin, sample datasets, a sample run. Does nothing where an account exists."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--new", action="store_true", help="Even where files say that the database was lost.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["new"]:
            installation.refuse_lost_database()
        if not User.objects.exists():
            first_start.prepare()
        installation.mark()
