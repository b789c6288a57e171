from typing import Any

from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    help = "Train queued tasks, one after the other; several workers may run. Ctrl-C or SIGTERM saves the run first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--burst", action="store_true", help="Stop when nothing waits any more.")

    def handle(self, *args: Any, **options: Any) -> None:
        from training.engine import warm_up
        from training.engine.limits import refuse_more_than_free
        from work.queue import device_kind
        from work.worker import work

        # Memory that runs out is then an error that the engine meets, not the kernel's kill.
        work(device_kind(), warm_up=warm_up, in_horse=refuse_more_than_free, burst=options["burst"])
