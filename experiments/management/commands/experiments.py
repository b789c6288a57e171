"""manage.py experiments list|show|compare, each with --json for programs."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from accounts.commands import acting_user
from experiments import compare, remedies, selectors, verdicts
from experiments.columns import SORTABLE
from experiments.serializers import ExperimentDetail, ExperimentRow
from experiments.task_types import key_figures
from web.commands import JsonOrTextCommand, add_user_and_json_options, align_columns
from web.errors import InvalidError

FILTERS = ("q", "status", "learned", "dataset", "base_model", "sort")


class Command(JsonOrTextCommand):
    help = "List experiments, show the result of one, or compare several."

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="do", required=True)
        list_parser = subparsers.add_parser("list", help="newest first, unless --sort says otherwise")
        for name in FILTERS:
            help_text = f"one of {', '.join(SORTABLE)}; --sort=-accuracy: the best first" if name == "sort" else None
            list_parser.add_argument(f"--{name.replace('_', '-')}", default="", help=help_text)
        list_parser.add_argument("--limit", type=int, default=20, help="how many are listed (20)")
        show_parser = subparsers.add_parser("show", help="status, results and files of one")
        show_parser.add_argument("name")
        compare_parser = subparsers.add_parser("compare", help="measures, labels, and the settings that differ")
        compare_parser.add_argument("names", nargs="+", metavar="name")
        for subparser in (list_parser, show_parser, compare_parser):
            add_user_and_json_options(subparser)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        if options["do"] == "list":
            return self.list_all(options)
        if options["do"] == "show":
            return self.show(options)
        return self.compare(options)

    def list_all(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        query = {name: options[name] for name in FILTERS}
        experiments = selectors.search(acting_user(options["user"]), **query)[: options["limit"]]
        rows: list[list[Any]] = [["experiment", "status", "score", "metric", "dataset", "base model"]]
        for each in experiments:
            score = None if each.score is None else f"{each.score:.4f}"
            status = f"{each.task.status}, did not learn" if each.learned is False else each.task.status
            rows.append([each.name, status, score, each.score_name, each.dataset_name, each.base_model])
        lines = align_columns(rows) if len(rows) > 1 else ["No experiments match."]
        return ExperimentRow(experiments, many=True).data, lines

    def show(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        experiment = selectors.get_experiment(acting_user(options["user"]), options["name"])
        verdict = verdicts.verdict(experiment.metrics)
        facts: list[list[Any]] = [
            ["status", experiment.task.status],
            ["owner", experiment.owner.username],
            ["dataset", experiment.dataset_name],
            ["base model", experiment.base_model],
            ["task type", experiment.task_type],
        ]
        for figure in key_figures(experiment.metrics):
            value = figure["value"]
            facts.append([str(figure["title"]), None if value is None else f"{value:.4f}"])
        facts.append(["results", str(experiment.folder)])
        title = f"{experiment.name}: {verdict}" if verdict else experiment.name
        diagnosis = remedies.diagnose(experiment.metrics, experiment.config)
        lines = [title, *(diagnosis.lines() if diagnosis else []), *align_columns(facts)]
        return ExperimentDetail(experiment).data, lines

    def compare(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        names = options["names"]
        if not compare.FEWEST <= len(names) <= compare.MOST:
            limits = {"fewest": compare.FEWEST, "most": compare.MOST}
            raise InvalidError(_("Name %(fewest)d to %(most)d experiments.") % limits)
        experiments = selectors.experiments_named(acting_user(options["user"]), names)
        measures = {
            str(row["column"].title): [cell["value"] for cell in row["cells"]]
            for row in (*compare.measure_rows(experiments), *compare.label_rows(experiments))
        }
        settings = {row["title"]: row["values"] for row in compare.setting_rows(experiments)}
        table = [["", *names]]
        for title, values in (measures | settings).items():
            shown = [f"{value:.4g}" if isinstance(value, float) else value for value in values]
            table.append([title, *shown])
        return {"experiments": names, "measures": measures, "settings": settings}, align_columns(table)
