import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from engine.errors import CheckpointDamagedError
from engine.storage import verify_folder
from monitoring.backup import differences


class Command(BaseCommand):
    help = "Verify that stored files match the database, and the audit log's chain. Exit status 1 if they differ."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--backup", type=Path, help="Only verify that this backup is complete, file by file.")
        parser.add_argument("--json", action="store_true", help="Print a JSON list of the differences.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["backup"]:
            try:
                verify_folder(options["backup"])
            except CheckpointDamagedError as error:
                raise CommandError(str(error)) from None
            self.stdout.write("The backup is complete and unchanged.")
            return
        results = list(differences())
        if options["json"]:
            # The key `said` is older than the name `reason`, and programs read it.
            entries = [{"kind": one.kind, "name": one.name, "what": one.what, "said": one.reason} for one in results]
            self.stdout.write(json.dumps(entries, ensure_ascii=False, indent=2))
        else:
            for one in results:
                self.stdout.write(f"{one.what:8}  {one.kind:8}  {one.name}: {one.reason}")
            self.stdout.write(f"Differences: {len(results)}" if results else "All stored files match the database.")
        if results:
            sys.exit(1)
