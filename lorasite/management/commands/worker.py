import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

import engine
from datasets_app.models import QUEUE as DATA_QUEUE
from engine.memory_limits import limit_to_free_memory
from experiments.models import EXPORT_QUEUE
from lorasite.file_permissions import restrict_file_permissions
from lorasite.supervisor import say
from work.queue import device_kind
from work.worker import work

NICENESS = 10  # work on data slows a training run on the same machine only a little


class Command(BaseCommand):
    help = "Carry out queued tasks, one after the other; several workers may run. Ctrl-C or SIGTERM saves a run first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--burst", action="store_true", help="Stop when the queue is empty.")
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument("--data", action="store_true", help="Process data tasks instead of training runs.")
        kind.add_argument("--exports", action="store_true", help="Export models instead of training them.")

    def handle(self, *args: Any, **options: Any) -> None:
        for line in restrict_file_permissions():
            say(line)
        if options["exports"]:
            os.nice(NICENESS)
            # Exports are rare: nothing is imported for them in advance, which would take 400 MiB all the time.
            status = work(EXPORT_QUEUE, warm_up=lambda: None, in_horse=lambda: None, burst=options["burst"])
        elif options["data"]:
            # Imported here because it takes seconds, and a worker of training runs does not need it.
            from datasets_app.jobs import warm_up

            os.nice(NICENESS)
            status = work(DATA_QUEUE, warm_up=warm_up, in_horse=lambda: None, burst=options["burst"])
        else:
            # With a limit, running out of memory is an error that the engine handles; without, the kernel kills the run.
            status = work(device_kind(), warm_up=engine.warm_up, in_horse=limit_to_free_memory, burst=options["burst"])
        if status:
            sys.exit(status)
