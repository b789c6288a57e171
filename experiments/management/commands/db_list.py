import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from datasets_app.models import Version
from experiments.models import Experiment


class Command(BaseCommand):
    help = "List the datasets and experiments in the database, newest first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON, for programs.")

    def handle(self, *args: Any, **options: Any) -> None:
        datasets: list[dict[str, Any]] = [
            {"dataset": str(version), "rows": version.rows, "hash": version.hash}
            for version in Version.objects.select_related("dataset")
        ]
        experiments: list[dict[str, Any]] = [
            {
                "experiment": experiment.name,
                "status": experiment.task.status,
                "accuracy": experiment.accuracy,
                "task_type": experiment.task_type,
                "score": experiment.score,
                "score_name": experiment.score_name,
                "dataset": experiment.dataset_name,
            }
            for experiment in Experiment.objects.select_related("task").defer("config", "metrics")
        ]
        if options["json"]:
            self.stdout.write(json.dumps({"datasets": datasets, "experiments": experiments}))
            return
        for row in [*datasets, *experiments]:
            self.stdout.write("  ".join(str(value) for value in row.values()))
