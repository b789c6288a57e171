import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from engine.errors import CheckpointDamagedError
from engine.storage import verify_folder
from monitoring.backup import differences


class Command(BaseCommand):
    help = "Hold every row against its files by hash, and every file against the rows; exit status 1 where they differ."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--backup", type=Path, help="Only see whether this backup is whole, file by file.")
        parser.add_argument("--json", action="store_true", help="Print a JSON list of the differences.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["backup"]:
            self.check_backup(options["backup"])
            return
        found = list(differences())
        if options["json"]:
            self.stdout.write(json.dumps([one.as_dict() for one in found], ensure_ascii=False, indent=2))
        else:
            self.tell(found)
        if found:
            sys.exit(1)

    def check_backup(self, folder: Path) -> None:
        try:
            verify_folder(folder)
        except CheckpointDamagedError as error:
            raise CommandError(str(error)) from None
        self.stdout.write("The backup holds what was written.")

    def tell(self, found: list[Any]) -> None:
        for one in found:
            self.stdout.write(f"{one.what:8}  {one.kind:8}  {one.name}: {one.said}")
        self.stdout.write(f"{len(found)} differences." if found else "Every row has its files, and every file its row.")
