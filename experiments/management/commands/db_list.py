import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from datasets_app.models import Version
from experiments.models import Experiment


class Command(BaseCommand):
    help = "List the datasets and experiments in the database, newest first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="For programs.")

    def handle(self, *args: Any, **options: Any) -> None:
        datasets: list[dict[str, Any]] = [
            {"dataset": str(v), "rows": v.rows, "hash": v.hash} for v in Version.objects.select_related("dataset")
        ]
        found = Experiment.objects.select_related("task").defer("config", "metrics")
        runs: list[dict[str, Any]] = [
            {"experiment": e.name, "status": e.task.status, "accuracy": e.accuracy, "dataset": e.dataset_name}
            for e in found
        ]
        if options["json"]:
            self.stdout.write(json.dumps({"datasets": datasets, "experiments": runs}))
            return
        for row in [*datasets, *runs]:
            self.stdout.write("  ".join(str(value) for value in row.values()))
