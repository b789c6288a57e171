"""manage.py datasets import|list|validate|export, each with --json for programs."""

from argparse import BooleanOptionalAction
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from accounts.commands import acting_user
from datasets_app import descriptions, selectors, services
from datasets_app.models import Version
from datasets_app.reading import hub
from datasets_app.versions.creation import READ_OPTIONS, StoreOptions, describe_source
from datasets_app.versions.reading_report import reading_report
from web.commands import MISSING, MISUSED, JsonOrTextCommand, add_user_and_json_options


class Command(JsonOrTextCommand):
    help = "Import and export data files, list the datasets, or check a file without storing it."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        add = commands.add_parser("import", help="store a file as a dataset's next version")
        add.add_argument("name")
        add.add_argument("--note", default="")
        add.add_argument("--hub", help="id of a data set of the hub, in place of a file")
        add.add_argument("--config", help="of that data set, where it has several")
        add.add_argument("--revision", help="of that data set; the newest where left out")
        check = commands.add_parser("validate", help="check a file; nothing is stored")
        for command in (add, check):
            command.add_argument("file", type=Path, nargs="?" if command is add else None)
            _add_reading_options(command)
        shown = commands.add_parser("list", help="the datasets with their newest versions")
        export = commands.add_parser("export", help="write the rows of a version to a file")
        export.add_argument("reference", metavar="NAME[@VERSION]")
        export.add_argument("--output", type=Path, required=True, help="a new file")
        export.add_argument("--format", default="csv", help="csv, jsonl or parquet")
        export.add_argument("--label", default="", help="only rows with this label")
        export.add_argument("--contains", default="", help="only rows whose text contains this")
        export.add_argument("--split", default="", help="only rows of this split")
        for command in (add, check, shown, export):
            add_user_and_json_options(command)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        try:
            match options["do"]:
                case "import":
                    return self.store(options)
                case "list":
                    return self.show(options)
                case "export":
                    return self.export(options)
                case _:
                    return self.validate(options)
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}", returncode=MISSING) from error

    def store(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        """Store a file or a data set of the hub; answer with the version and its findings."""
        user = acting_user(options["user"])
        common = {"name": options["name"], "note": options["note"]}
        if options["hub"]:
            revision = hub.pin_revision(options["hub"], options["revision"])
            prepared = hub.prepare_dataset(
                user=user,
                hub=options["hub"],
                config=options["config"],
                revision=revision,
                **common,
                **_reading_options(options),
            )
            version = services.insert(prepared)
        elif options["file"]:
            version = services.create_version(
                user=user,
                file=options["file"],
                filename=options["file"].name,
                **common,
                **_reading_options(options),
            )
        else:
            raise CommandError("Name a file, or a data set of the hub with --hub.", returncode=MISUSED)
        findings = [{"code": f.code, "severity": f.severity, "count": f.count} for f in version.findings.all()]
        read = reading_report(version)
        answer = {**_describe(version), "read": read, "findings": findings}
        return answer, [f"{version}: {version.rows} rows", *_reading_lines(read), *map(_finding_line, findings)]

    def show(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        """Answer with the newest version of each dataset."""
        datasets = selectors.datasets_for(acting_user(options["user"]))
        versions = [dataset.latest for dataset in datasets if dataset.versions.all()]
        lines = [f"{version}\t{version.rows} rows\t{len(version.labels)} labels" for version in versions]
        return [_describe(version) for version in versions], lines

    def export(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        """Write the rows of a version to a file."""
        from datasets_app.versions import export  # pyarrow takes a while to import

        version = selectors.version_for(acting_user(options["user"]), options["reference"])
        row_filter = selectors.RowFilter(options["label"], options["contains"], options["split"])
        rows = export.write_to(version, options["format"], row_filter, options["output"])
        answer = {"name": version.dataset.name, "version": version.number, "rows": rows, "file": str(options["output"])}
        return answer, [f"{options['output']}: {rows} rows of {version}"]

    def validate(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        """Check a file without storing it."""
        from datasets_app.checks import findings  # imports polars, which takes half a second

        file = options["file"]
        table, rows = services.read_rows(
            file,
            file.name,
            _reading_options(options),
            limit=settings.UPLOAD_LIMIT,
        )
        results = [
            {"code": result.code, "severity": result.severity, "count": result.count, "examples": result.examples}
            for result in findings.run_checks(rows).results
        ]
        unstored = Version(rows=rows.frame.height, kind=rows.kind, source=describe_source(table, rows, file.name))
        read = reading_report(unstored)
        answer = {
            "rows": rows.frame.height,
            "kind": rows.kind,
            "broken_lines": table.broken_lines,
            "read": read,
            "findings": results,
        }
        head = f"{file.name}: {rows.frame.height} rows, {table.broken_lines} broken lines"
        return answer, [head, *_reading_lines(read), *map(_finding_line, results)]


def _add_reading_options(command: CommandParser) -> None:
    """Add what a person can say about a file; what is left out is guessed."""
    command.add_argument(
        "--text-column", action="append", dest="text_columns", metavar="COLUMN", help="several: joined"
    )
    command.add_argument("--text-pair-column", metavar="COLUMN", help="a second text of each row")
    command.add_argument(
        "--label-column",
        action="append",
        dest="label_columns",
        metavar="COLUMN",
        help="several: yes or no for each label",
    )
    command.add_argument("--split-column", metavar="COLUMN")
    command.add_argument("--kind", choices=Version.Kind.values)
    command.add_argument(
        "--column-role",
        action="append",
        dest="column_roles",
        metavar="COLUMN=ROLE",
        type=_column_role,
        help="of conversations: messages, prompt, answer, system, chosen or rejected",
    )
    command.add_argument("--merge-labels", action="store_true", help="merge labels that look alike")
    command.add_argument("--encoding")
    command.add_argument("--delimiter")
    command.add_argument("--quote", help="the quotation mark; empty: marks are part of the texts")
    command.add_argument("--header", action=BooleanOptionalAction, help="whether the first line names the columns")
    command.add_argument("--skip-lines", type=int, metavar="N", help="before the header")
    command.add_argument("--sheet", help="of a workbook")


def _column_role(typed: str) -> tuple[str, str]:
    """Return a column and its role, which follows the last equals sign."""
    column, _equals, role = typed.rpartition("=")
    return column, role


def _reading_options(options: dict[str, Any]) -> StoreOptions:
    given = {name: options[name] for name in READ_OPTIONS if options.get(name) is not None}
    if "column_roles" in given:
        given["column_roles"] = dict(given["column_roles"])
    return cast(StoreOptions, given)


def _reading_lines(read: dict[str, Any]) -> list[str]:
    """Return what to tell of how a file was read."""
    left_out = [f"{count} rows left out: {reason}" for reason, count in read["rows_left_out"].items()]
    return [*left_out, *read["notes"]]


def _describe(version: Version) -> dict[str, Any]:
    return {
        "name": version.dataset.name,
        "version": version.number,
        "rows": version.rows,
        "labels": version.labels,
        "kind": version.kind,
    }


def _finding_line(finding: dict[str, Any]) -> str:
    return f"{finding['severity']:8} {descriptions.describe_finding(finding['code'], finding['count'])}"
