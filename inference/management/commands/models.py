"""manage.py models list|show|register|alias|share|recommend, each with --json for programs."""

from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import person
from accounts.sharing import LEVELS, give, recipients
from experiments.models import ModelVersion
from experiments.registry import selectors, services
from experiments.registry.serializers import ModelDetail, ModelRow
from experiments.results import verdict
from experiments.selectors import managed_experiment
from inference.api import RecommendationSerializer
from inference.recommendation import SAMPLE, Measured, data_for, recommend
from web.commands import Answering, columns, who_and_how

FILTERS = ("q", "language", "base_model", "labels", "sort")


class Command(Answering):
    help = "Find, register, share and recommend models."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        found = commands.add_parser("list", help="the models that one may see")
        for name in FILTERS:
            found.add_argument(f"--{name.replace('_', '-')}", default="")
        found.add_argument("--limit", type=int, default=50, help="how many are listed (50)")
        shown = commands.add_parser("show", help="what one is good for")
        shown.add_argument("name", help="name, name@3 or name@champion")
        made = commands.add_parser("register", help="a finished experiment becomes a model's next version")
        made.add_argument("experiment")
        made.add_argument("name", help="a new one, or that of a model that one manages")
        for option in ("summary", "note"):
            made.add_argument(f"--{option}", default="")
        made.add_argument("--checkpoint", default="best", help="best, last or fastest")
        moved = commands.add_parser("alias", help="let name@alias mean a version")
        moved.add_argument("name", help="name@3")
        moved.add_argument("alias")
        shared = commands.add_parser("share", help="let somebody see or manage a model, or not any more")
        shared.add_argument("name")
        shared.add_argument("--to", required=True, help="a person, group:NAME, or everyone")
        shared.add_argument("--access", default="view", choices=list(LEVELS))
        asked = commands.add_parser("recommend", help="which model is right most often on a dataset's rows")
        asked.add_argument("dataset", help="name or name@version")
        asked.add_argument("--sample", type=int, default=SAMPLE, help=f"rows to measure on ({SAMPLE})")
        for command in (found, shown, made, moved, shared, asked):
            who_and_how(command)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        does = {
            "list": self.listed, "show": self.show, "register": self.register, "alias": self.alias, "share": self.share,
            "recommend": self.recommend,
        }  # fmt: skip
        return does[options["do"]](options)

    def listed(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        query = {name: options[name] for name in FILTERS}
        found = selectors.search(person(options["user"]), **query)[: options["limit"]]
        rows = [[m.name, m.latest.number if m.latest else None, m.language, m.accuracy, m.base_model] for m in found]
        lines = columns([["model", "version", "language", "accuracy", "base model"], *rows])
        return ModelRow(found, many=True).data, lines if rows else ["No model fits."]

    def show(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        return told(selectors.version_for(person(options["user"]), options["name"]))

    def register(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = person(options["user"])
        given = {name: options[name] for name in ("name", "summary", "note", "checkpoint")}
        return told(services.register(user=user, experiment=managed_experiment(user, options["experiment"]), **given))

    def alias(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = person(options["user"])
        selectors.managed_model(user, options["name"].partition("@")[0])
        version = selectors.version_for(user, options["name"])
        services.set_alias(user=user, version=version, name=options["alias"])
        return told(version)

    def share(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = person(options["user"])
        model = selectors.model_for(user, options["name"])
        for to in recipients(options["to"]):
            give(user=user, obj=model, to=to, level=options["access"])
        done = {"model": model.name, "to": options["to"], "access": options["access"]}
        return done, [f"{model.name}: {options['to']}, {options['access']}"]

    def recommend(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = person(options["user"])
        found = recommend(user=user, data=data_for(user, options["dataset"]), sample=options["sample"])
        lines = [_measured(each) for each in found.models] or ["No registered model tells just these labels apart."]
        if found.start:
            lines.append(f"Train another like {found.start.experiment.name}: {found.start.reason}")
        return RecommendationSerializer(found).data, lines


def told(version: ModelVersion) -> tuple[Any, list[str]]:
    facts = {
        "labels": ", ".join(version.labels), "language": version.language, "base model": version.base_model,
        "data": version.dataset_name, "accuracy": version.accuracy, "macro F1": version.macro_f1,
        "experiment": version.experiment_name, "checkpoint": version.checkpoint, "files": str(version.folder),
    }  # fmt: skip
    lines = [f"{version}: {verdict(version.metrics)}", *columns([[name, value] for name, value in facts.items()])]
    return ModelDetail(version.model, context={"version": version}).data, lines


def _measured(each: Measured) -> str:
    return f"{each.version}  {'not measured' if each.accuracy is None else f'{each.accuracy:.3f}'}  {each.reason}"
