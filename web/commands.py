"""What the commands of manage.py share: who acts, how answers and errors are told, what the exit status says."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from web.errors import LorasiteError

REFUSED, MISUSED, MISSING, FORBIDDEN = 1, 2, 3, 4  # exit statuses; 2 is argparse's own too
EXITS = {400: MISUSED, 404: MISSING, 403: FORBIDDEN}


class Answering(BaseCommand):
    """A command that answers people in lines, and programs (--json) in the API's shapes."""

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        """What --json prints, and the lines for people."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found, lines = self.answer(options)
        except LorasiteError as error:
            raise refused(error) from None
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(f"The database can't be read ({error}). `make start` makes it.") from error
        told = json.dumps(found, ensure_ascii=False, indent=2, default=str) if options["json"] else "\n".join(lines)
        self.stdout.write(told)


def who_and_how(parser: CommandParser) -> None:
    """--user and --json, for each command that has no subcommands, and for each subcommand."""
    parser.add_argument("--user", help="Who asks; left out: the first admin.")
    parser.add_argument("--json", action="store_true", help="Print JSON, as the API gives it.")


def refused(error: LorasiteError) -> CommandError:
    return CommandError(told(error), returncode=EXITS.get(error.status, REFUSED))


def told(error: LorasiteError) -> str:
    """The sentence, and each field's below it."""
    lines = [f"  {p['field'] or 'configuration'}: {p['message']}" for p in error.problems]
    return "\n".join([str(error.message), *lines])


def columns(rows: list[list[Any]]) -> list[str]:
    """Rows as lines whose cells stand below each other; the first row is the head."""
    cells = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
