"""manage.py base_models: the base models that runs may use, with --json for programs."""

from typing import Any

from django.core.management.base import CommandParser

from experiments.task_types import TASK_TYPES
from training.hub_search import find_base_models
from training.serializers import BaseModelsSerializer
from web.commands import JsonOrTextCommand, align_columns


class Command(JsonOrTextCommand):
    help = "List the base models that runs may use: those on this machine first, then the recommended ones of the hub."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("query", nargs="?", default="", help="Words in name, languages, licence or purpose.")
        parser.add_argument("--language", default="", help="Only models that are known to read it, such as Chinese.")
        parser.add_argument("--task", choices=TASK_TYPES, help="Only models that can learn this task type.")
        parser.add_argument("--hub", action="store_true", help="Also search the model hub for the words.")
        parser.add_argument("--json", action="store_true", help="Print JSON in the API's format.")

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        models, hub = find_base_models(options["query"], options["language"], options["task"], search=options["hub"])
        rows: list[list[Any]] = [["base model", "on this machine", "size", "languages", "licence"]]
        for model in models:
            here = "yes" if model.is_here else "no"
            rows.append([model.name, here, model.size, model.languages_read, model.licence])
        lines = align_columns(rows) if len(rows) > 1 else ["No base models match."]
        if hub == "away":
            lines.append("The model hub can't be reached, so it was not searched.")
        return BaseModelsSerializer({"results": models, "hub": hub}).data, lines
