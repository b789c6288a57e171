"""manage.py audit list|verify|export."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit import export, services
from audit.api import EntrySerializer
from audit.selectors import FILTERS, search
from web.commands import columns, refused
from web.errors import LorasiteError


class Command(BaseCommand):
    help = "Read the audit log, check that no entry was changed, removed or put in, or write it as CSV."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        verify = commands.add_parser("verify", help="read the whole chain; exit status 1 where it is broken")
        verify.add_argument(
            "--head", default="", metavar="HASH", help="a head printed earlier that must still be there"
        )
        wanted = commands.add_parser("export", help="CSV on standard output, newest first; itself an entry of the log")
        shown = commands.add_parser("list", help="the newest entries first")
        shown.add_argument("--limit", type=int, default=50, help="how many (50)")
        shown.add_argument("--json", action="store_true", help="print JSON, as the API gives it")
        for command in (wanted, shown):
            for name in FILTERS:
                command.add_argument(f"--{name}", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            {"list": self.listed, "verify": self.verify, "export": self.export}[options["do"]](options)
        except LorasiteError as error:
            raise refused(error) from None

    def listed(self, options: dict[str, Any]) -> None:
        found = search({name: options[name] for name in FILTERS})[: options["limit"]]
        if options["json"]:
            self.stdout.write(json.dumps(EntrySerializer(found, many=True).data, ensure_ascii=False, indent=2))
            return
        rows = [[f"{e.at:%Y-%m-%d %H:%M:%S}", e.username, e.action, e.object_id, e.result] for e in found]
        self.stdout.write("\n".join(columns([["time (UTC)", "who", "what", "on", "result"], *rows])))

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
        for line in export.lines(services.export({k: options[k] for k in FILTERS})):
            self.stdout.write(line, ending="")
