import os
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from lorasite.private_files import keep_private
from lorasite.supervisor import say

NICENESS = 10  # a look at data never slows a training down by much


class Command(BaseCommand):
    help = "Carry out queued tasks, one after the other; several workers may run. Ctrl-C or SIGTERM saves a run first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--burst", action="store_true", help="Stop when nothing waits any more.")
        parser.add_argument("--data", action="store_true", help="Serve work on data instead of trainings.")

    def handle(self, *args: Any, **options: Any) -> None:
        for line in keep_private():
            say(line)
        (serve_data if options["data"] else serve_trainings)(options["burst"])


def serve_trainings(burst: bool) -> None:
    from engine import warm_up
    from engine.memory_limits import limit_to_free_memory
    from work.queue import device_kind
    from work.worker import work

    # Memory that runs out is then an error that the engine meets, not the kernel's kill.
    work(device_kind(), warm_up=warm_up, in_horse=limit_to_free_memory, burst=burst)


def serve_data(burst: bool) -> None:
    from datasets_app.jobs import warm_up
    from datasets_app.models import QUEUE
    from work.worker import work

    os.nice(NICENESS)
    work(QUEUE, warm_up=warm_up, in_horse=lambda: None, burst=burst)
