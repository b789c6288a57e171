"""What the commands of manage.py share: options, output for people and as JSON, error messages, exit statuses."""

import json
from abc import ABC, abstractmethod
from typing import Any
from unicodedata import combining, east_asian_width

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from web.errors import LorasiteError

# Exit statuses. argparse exits with 2 for misuse, too.
REFUSED = 1
MISUSED = 2
MISSING = 3
FORBIDDEN = 4
EXITS = {400: MISUSED, 404: MISSING, 403: FORBIDDEN}


class JsonOrTextCommand(BaseCommand, ABC):
    """A command that prints lines for people, or the API's JSON with --json."""

    @abstractmethod
    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        """Return the data to print with --json, and the lines to print without it."""

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data, lines = self.answer(options)
        except LorasiteError as error:
            raise command_error(error) from None
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(f"The database can't be read ({error}). `make start` creates it.") from error
        if options["json"]:
            self.stdout.write(json.dumps(data, ensure_ascii=False, indent=2, default=str))
        else:
            self.stdout.write("\n".join(lines))


def add_user_and_json_options(parser: CommandParser) -> None:
    """Add --user and --json to a command or subcommand."""
    parser.add_argument("--user", help="User to act as; default: the first administrator.")
    parser.add_argument("--json", action="store_true", help="Print JSON in the API's format.")


def command_error(error: LorasiteError) -> CommandError:
    """Return the command's error for `error`: its message, its problems one per line, and the exit status."""
    lines = [str(error.message)]
    for problem in error.problems:
        field = problem["field"] or "configuration"
        lines.append(f"  {field}: {problem['message']}")
    status = EXITS.get(error.status, REFUSED)
    return CommandError("\n".join(lines), returncode=status)


def align_columns(rows: list[list[Any]]) -> list[str]:
    """Format rows as lines with aligned columns; the first row is the header, None is shown as a dash."""
    cells = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(terminal_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [cell + " " * (width - terminal_width(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


def terminal_width(text: str) -> int:
    """Return how many columns a text takes: Chinese characters take two, combining marks none."""
    return sum(0 if combining(character) else 1 + (east_asian_width(character) in "WF") for character in text)
