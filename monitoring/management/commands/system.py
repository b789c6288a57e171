import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError

from monitoring import health, selectors
from monitoring.serializers import SystemSerializer

STATES = {"ok": "OK", "warning": "Warning", "error": "Failed"}


class Command(BaseCommand):
    help = "System status: checks, queues and workers. Exit status 1 while a check fails."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON, in the API's shape.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            system = selectors.system()
        except DatabaseError:
            # Queues and workers are in the database, but the checks explain what is wrong with it.
            self.print_checks(health.checks())
            sys.exit(1)
        if options["json"]:
            self.stdout.write(json.dumps(SystemSerializer(system).data, default=str, indent=2, ensure_ascii=False))
        else:
            self.print_checks(system.checks)
            for queue in system.queues:
                self.stdout.write(f"queue    {queue.kind:9}  {queue.waiting} waiting, {queue.running} running")
            for worker in system.workers:
                doing = worker.task.experiment.name if worker.task else "idle"
                state = doing if worker.is_alive else "offline"
                self.stdout.write(f"worker   {worker.row!s:9}  {worker.row.kind}, {state}")
        if not system.is_ready:
            sys.exit(1)

    def print_checks(self, checks: list[health.Check]) -> None:
        for check in checks:
            self.stdout.write(f"{STATES[check.state]:7}  {check.name:9}  {check.reason}")
