import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError

from monitoring import health, selectors
from monitoring.serializers import SystemSerializer

SHAPES = {"ok": "ok     ", "warning": "look at", "error": "FAILS  "}


class Command(BaseCommand):
    help = "Is the installation well? Checks, queues and workers; exit status 1 while a check fails."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON, as the API gives it.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = selectors.system()
        except DatabaseError:
            self.checks(health.checks())
            sys.exit(1)
        if options["json"]:
            self.stdout.write(json.dumps(SystemSerializer(found).data, default=str, indent=2, ensure_ascii=False))
        else:
            self.tell(found)
        if not found.is_ready:
            sys.exit(1)

    def checks(self, found: list[health.Check]) -> None:
        for check in found:
            self.stdout.write(f"{SHAPES[check.state]}  {check.name:9}  {check.reason}")

    def tell(self, found: selectors.System) -> None:
        self.checks(found.checks)
        for queue in found.queues:
            self.stdout.write(f"queue    {queue.kind:9}  {queue.waiting} waiting, {queue.running} running")
        for worker in found.workers:
            doing = worker.task.experiment.name if worker.task else "idle"
            self.stdout.write(f"worker   {worker.row!s:9}  {worker.row.kind}, {doing if worker.is_alive else 'gone'}")
