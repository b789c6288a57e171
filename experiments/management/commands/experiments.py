"""manage.py experiments list|show|compare, each with --json for programs."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from accounts.commands import person
from experiments import compare, results, selectors
from experiments.columns import SORTABLE
from experiments.serializers import ExperimentDetail, ExperimentRow
from web.commands import Answering, columns, who_and_how
from web.errors import Invalid

FILTERS = ("q", "status", "dataset", "base_model", "sort")


class Command(Answering):
    help = "List experiments, show what one has left, or hold several against each other."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        shown = commands.add_parser("list", help="the newest first, unless --sort says otherwise")
        for name in FILTERS:
            words = f"one of {', '.join(SORTABLE)}; --sort=-accuracy: the best first" if name == "sort" else None
            shown.add_argument(f"--{name.replace('_', '-')}", default="", help=words)
        shown.add_argument("--limit", type=int, default=20, help="how many are listed (20)")
        one = commands.add_parser("show", help="status, results and files of one")
        one.add_argument("name")
        several = commands.add_parser("compare", help="measures, labels, and the settings that differ")
        several.add_argument("names", nargs="+", metavar="name")
        for command in (shown, one, several):
            who_and_how(command)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        return {"list": self.listed, "show": self.show, "compare": self.compare}[options["do"]](options)

    def listed(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        query = {name: options[name] for name in FILTERS}
        found = selectors.search(person(options["user"]), **query)[: options["limit"]]
        rows = [
            [each.name, each.task.status, _share(each.accuracy), each.dataset_name, each.base_model] for each in found
        ]
        lines = columns([["experiment", "status", "accuracy", "dataset", "base model"], *rows])
        return ExperimentRow(found, many=True).data, lines if rows else ["No experiments fit."]

    def show(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        found = selectors.experiment_for(person(options["user"]), options["name"])
        facts = {
            "status": found.task.status, "owner": found.owner.username, "dataset": found.dataset_name,
            "base model": found.base_model, "accuracy": _share(found.accuracy), "macro F1": _share(found.macro_f1),
            "results": str(found.folder),
        }  # fmt: skip
        return ExperimentDetail(found).data, [f"{found.name}: {results.verdict(found.metrics)}".rstrip(": "), *columns(
            [[name, value] for name, value in facts.items()]
        )]  # fmt: skip

    def compare(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        names = options["names"]
        if not compare.FEWEST <= len(names) <= compare.MOST:
            raise Invalid(
                _("Name %(fewest)d to %(most)d experiments.") % {"fewest": compare.FEWEST, "most": compare.MOST}
            )
        found = selectors.experiments_named(person(options["user"]), names)
        measured = {
            str(row["column"].title): [cell["value"] for cell in row["cells"]]
            for row in (*compare.measures(found), *compare.labels(found))
        }
        differ = {row["title"]: row["values"] for row in compare.settings(found)}
        rows = [[name, *map(_plain, values)] for name, values in (measured | differ).items()]
        return {"experiments": names, "measures": measured, "settings": differ}, columns([["", *names], *rows])


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _plain(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
