"""manage.py datasets import|list|validate, each with --json for programs."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from accounts.commands import person
from datasets_app import selectors, services, wording
from datasets_app.models import Version
from datasets_app.reading import hub
from web.commands import MISSING, MISUSED, Answering, who_and_how


class Command(Answering):
    help = "Import data files, list the datasets, or check a file without storing it."

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
            for option in ("--text-column", "--label-column", "--encoding", "--delimiter"):
                command.add_argument(option)
        shown = commands.add_parser("list", help="the datasets with their newest versions")
        for command in (add, check, shown):
            who_and_how(command)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        try:
            return {"import": self.store, "list": self.show, "validate": self.validate}[options["do"]](options)
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}", returncode=MISSING) from error

    def store(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        version = _fetched(options) if options["hub"] else _read(options)
        found = [{"code": f.code, "severity": f.severity, "count": f.count} for f in version.findings.all()]
        answer = {
            "name": version.dataset.name,
            "version": version.number,
            "rows": version.rows,
            "labels": version.labels,
        }
        return {**answer, "findings": found}, [f"{version}: {version.rows} rows", *map(_line, found)]

    def show(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        found = [d.latest for d in selectors.datasets_for(person(options["user"])) if d.versions.all()]
        answer = [{"name": v.dataset.name, "version": v.number, "rows": v.rows, "labels": v.labels} for v in found]
        return answer, [f"{v}\t{v.rows} rows\t{len(v.labels)} labels" for v in found]

    def validate(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        from datasets_app.checks import findings

        file, given = options["file"], {key: options[key] for key in ("encoding", "delimiter")}
        chosen = options["text_column"], options["label_column"]
        table, rows = services.read_rows(file, file.name, *chosen, limit=settings.UPLOAD_LIMIT, **given)
        found = [
            {"code": f.code, "severity": f.severity, "count": f.count, "examples": f.examples}
            for f in findings.run(rows).found
        ]
        answer = {"rows": rows.frame.height, "broken_lines": table.broken_lines, "findings": found}
        head = f"{file.name}: {rows.frame.height} rows, {table.broken_lines} broken lines"
        return answer, [head, *map(_line, found)]


def _read(options: dict[str, Any]) -> Version:
    if options["file"] is None:
        raise CommandError("Name a file, or a data set of the hub by --hub.", returncode=MISUSED)
    given = {key: options[key] for key in ("name", "file", "note", "text_column", "label_column", "encoding")}
    filename, delimiter = options["file"].name, options["delimiter"]
    return services.create_version(user=person(options["user"]), filename=filename, delimiter=delimiter, **given)


def _fetched(options: dict[str, Any]) -> Version:
    user, revision = person(options["user"]), hub.pinned(options["hub"], options["revision"])
    given = {key: options[key] for key in ("name", "hub", "config", "note", "text_column", "label_column")}
    return services.insert(hub.prepare(user=user, revision=revision, **given))


def _line(finding: dict[str, Any]) -> str:
    return f"{finding['severity']:8} {wording.sentence(finding['code'], finding['count'])}"
