from typing import Any

from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    help = "Train queued tasks, one after the other; several workers may run. Ctrl-C or SIGTERM saves the run first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--burst", action="store_true", help="Stop when nothing waits any more.")

    def handle(self, *args: Any, **options: Any) -> None:
        from training.worker import work

        work(burst=options["burst"])
