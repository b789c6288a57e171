from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring.backup import backup
from web.errors import LorasiteError


class Command(BaseCommand):
    help = "Copy database, datasets, models, results and secret key into a new folder, with a hash of each file. Nothing stops."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="A folder that does not exist yet.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            folder = backup(options["folder"])
        except LorasiteError as error:
            raise CommandError(str(error.message)) from None
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.stdout.write(
            f"{folder}: {size / 2**20:,.1f} MiB. It contains the secret key; store it where only you can read it."
        )
