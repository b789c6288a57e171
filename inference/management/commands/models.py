"""manage.py models list|show|register|alias|share|export|recommend, each with --json for programs."""

from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import acting_user
from accounts.sharing import LEVELS, find_recipients, set_access
from experiments.models import ModelVersion
from experiments.registry import exports, selectors, services
from experiments.registry.serializers import ExportSerializer, ModelDetail, ModelRow
from experiments.results import verdict
from experiments.selectors import get_experiment
from inference.api import RecommendationSerializer
from inference.recommendation import SAMPLE, data_for, recommend
from web.commands import JsonOrTextCommand, add_user_and_json_options, align_columns

FILTERS = ("q", "language", "base_model", "labels", "sort")


class Command(JsonOrTextCommand):
    help = "Find, register, share, export and recommend models."

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="do", required=True)
        list_parser = subparsers.add_parser("list", help="the models that you may see")
        for name in FILTERS:
            list_parser.add_argument(f"--{name.replace('_', '-')}", default="")
        list_parser.add_argument("--limit", type=int, default=50, help="how many are listed (50)")

        show_parser = subparsers.add_parser("show", help="results and origin of one version")
        show_parser.add_argument("name", help="name, name@3 or name@champion")

        register_parser = subparsers.add_parser(
            "register", help="register a finished experiment as a model's next version"
        )
        register_parser.add_argument("experiment")
        register_parser.add_argument("name", help="a new name, or that of a model that you manage")
        register_parser.add_argument("--summary", default="")
        register_parser.add_argument("--note", default="")
        register_parser.add_argument("--checkpoint", default="best", help="best, last or fastest")

        alias_parser = subparsers.add_parser("alias", help="point name@alias at a version")
        alias_parser.add_argument("name", help="name@3")
        alias_parser.add_argument("alias")

        share_parser = subparsers.add_parser("share", help="let others see or manage a model, or stop sharing it")
        share_parser.add_argument("name")
        share_parser.add_argument("--to", required=True, help="a person, group:NAME, or everyone")
        share_parser.add_argument("--access", default="view", choices=list(LEVELS))

        export_parser = subparsers.add_parser("export", help="queue an export to a format, and show how far all are")
        export_parser.add_argument("name", help="name, name@3 or name@champion")
        export_parser.add_argument("format", nargs="?", choices=exports.FORMATS, help="without it, nothing is queued")

        recommend_parser = subparsers.add_parser("recommend", help="rank models by their accuracy on a dataset's rows")
        recommend_parser.add_argument("dataset", help="name or name@version")
        recommend_parser.add_argument("--sample", type=int, default=SAMPLE, help=f"rows to measure on ({SAMPLE})")

        for subparser in (
            list_parser,
            show_parser,
            register_parser,
            alias_parser,
            share_parser,
            export_parser,
            recommend_parser,
        ):
            add_user_and_json_options(subparser)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        actions = {
            "list": self.list_models,
            "show": self.show,
            "register": self.register,
            "alias": self.set_alias,
            "share": self.share,
            "export": self.export,
            "recommend": self.recommend,
        }
        return actions[options["do"]](options)

    def list_models(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        query = {name: options[name] for name in FILTERS}
        models = selectors.search(acting_user(options["user"]), **query)[: options["limit"]]
        rows: list[list[Any]] = [["model", "version", "language", "accuracy", "base model"]]
        for model in models:
            number = model.latest.number if model.latest else None
            rows.append([model.name, number, model.language, model.accuracy, model.base_model])
        lines = align_columns(rows) if len(rows) > 1 else ["No models match."]
        return ModelRow(models, many=True).data, lines

    def show(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        return describe_version(selectors.version_for(acting_user(options["user"]), options["name"]))

    def register(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = acting_user(options["user"])
        version = services.register(
            user=user,
            experiment=get_experiment(user, options["experiment"], manage=True),
            name=options["name"],
            summary=options["summary"],
            note=options["note"],
            checkpoint=options["checkpoint"],
        )
        return describe_version(version)

    def set_alias(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = acting_user(options["user"])
        version = selectors.version_for(user, options["name"], manage=True)
        services.set_alias(user=user, version=version, name=options["alias"])
        return describe_version(version)

    def share(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = acting_user(options["user"])
        model = selectors.model_for(user, options["name"])
        for recipient in find_recipients(options["to"]):
            set_access(user=user, obj=model, to=recipient, level=options["access"])
        share = {"model": model.name, "to": options["to"], "access": options["access"]}
        return share, [f"{model.name}: {options['to']}, {options['access']}"]

    def export(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = acting_user(options["user"])
        version = selectors.version_for(user, options["name"])
        if options["format"]:
            exports.request_export(user=user, version=version, format=options["format"])
        states = exports.list_formats(version)
        rows = [[state.format, state.export.status if state.export else "–", state.sentence] for state in states]
        return ExportSerializer(states, many=True).data, align_columns([["format", "status", ""], *rows])

    def recommend(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = acting_user(options["user"])
        recommendation = recommend(user=user, data=data_for(user, options["dataset"]), sample=options["sample"])
        lines = []
        for measured in recommendation.models:
            measure = measured.accuracy if measured.mae is None else measured.mae
            lines.append(
                f"{measured.version}  {'not measured' if measure is None else f'{measure:.3f}'}  {measured.reason}"
            )
        if not lines:
            lines.append("No registered model matches these data.")
        start = recommendation.start
        if start:
            lines.append(f"To train another, start from {start.experiment.name}: {start.reason}")
        return RecommendationSerializer(recommendation).data, lines


def describe_version(version: ModelVersion) -> tuple[Any, list[str]]:
    """Return a version in the API's shape and as lines for people."""
    facts: list[list[Any]] = [
        ["labels", ", ".join(version.labels)],
        ["language", version.language],
        ["base model", version.base_model],
        ["data", version.dataset_name],
        ["accuracy", version.accuracy],
        ["macro F1", version.macro_f1],
        ["experiment", version.experiment_name],
        ["checkpoint", version.checkpoint],
        ["files", str(version.folder)],
    ]
    lines = [f"{version}: {verdict(version.metrics)}", *align_columns(facts)]
    return ModelDetail(version.model, context={"version": version}).data, lines
