"""manage.py audit list|verify|export."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit import export, services
from audit.api import EntrySerializer
from audit.selectors import FILTERS, search
from web.commands import align_columns, command_error
from web.errors import LorasiteError


class Command(BaseCommand):
    help = "List the audit log, verify that no entry was changed, removed or inserted, or export it as CSV."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        verify = commands.add_parser("verify", help="check the whole chain; exit status 1 if it is broken")
        verify.add_argument(
            "--head", default="", metavar="HASH", help="an earlier head that must still be in the chain"
        )
        to_csv = commands.add_parser("export", help="print CSV, newest first; the export is recorded, too")
        shown = commands.add_parser("list", help="list the newest entries first")
        shown.add_argument("--limit", type=int, default=50, help="number of entries (default: 50)")
        shown.add_argument("--json", action="store_true", help="print JSON in the API's format")
        for command in (to_csv, shown):
            for name in FILTERS:
                command.add_argument(f"--{name}", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["do"] == "verify":
            self.verify(options["head"])
            return
        query = {name: options[name] for name in FILTERS}
        try:
            if options["do"] == "export":
                for line in export.lines(services.export(query)):
                    self.stdout.write(line, ending="")
                return
            entries = search(query)[: options["limit"]]
        except LorasiteError as error:
            raise command_error(error) from None
        if options["json"]:
            self.stdout.write(json.dumps(EntrySerializer(entries, many=True).data, ensure_ascii=False, indent=2))
            return
        rows = [[f"{e.at:%Y-%m-%d %H:%M:%S}", e.username, e.action, e.object_id, e.result] for e in entries]
        self.stdout.write("\n".join(align_columns([["time (UTC)", "user", "action", "object", "result"], *rows])))

    def verify(self, head: str) -> None:
        """Check the whole chain; raise CommandError, so that the exit status is 1, if it is broken or lacks `head`."""
        verdict = services.verify(head)
        if verdict.broken:
            raise CommandError(
                f"Broken at entry {verdict.broken.pk} ({verdict.broken}). "
                f"The {verdict.entries} entries before it are intact."
            )
        if verdict.head_missing:
            raise CommandError(f"{head} is not in the chain: its end was cut off, or the chain was rewritten.")
        self.stdout.write(f"The chain is intact: {verdict.entries} entries.\nhead {verdict.head}")
