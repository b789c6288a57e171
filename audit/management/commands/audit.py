"""manage.py audit verify|export."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.errors import LorasiteError
from audit import export, services
from audit.selectors import FILTERS


class Command(BaseCommand):
    help = "Check that no audit entry was changed, removed or put in, or write the log as CSV."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        verify = commands.add_parser("verify", help="read the whole chain; exit status 1 where it is broken")
        verify.add_argument(
            "--head", default="", metavar="HASH", help="a head printed earlier that must still be there"
        )
        wanted = commands.add_parser("export", help="CSV on standard output, newest first; itself an entry of the log")
        for name in FILTERS:
            wanted.add_argument(f"--{name}", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        {"verify": self.verify, "export": self.export}[options["do"]](options)

    def verify(self, options: dict[str, Any]) -> None:
        verdict = services.verify(options["head"])
        if verdict.broken:
            raise CommandError(
                f"Broken at entry {verdict.broken.pk} ({verdict.broken}). The {verdict.entries} before it hold."
            )
        if verdict.head_missing:
            raise CommandError(f"{options['head']} is not in the chain: its end was cut off, or it was written anew.")
        self.stdout.write(f"The chain holds: {verdict.entries} entries.\nhead {verdict.head}")

    def export(self, options: dict[str, Any]) -> None:
        try:
            found = services.export({k: options[k] for k in FILTERS})
        except LorasiteError as error:
            raise CommandError(str(error.message)) from error
        for line in export.lines(found):
            self.stdout.write(line, ending="")
