import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from engine.names import folder_name
from work.paths import results_dir


class Command(BaseCommand):
    help = "Show the log of the newest run, or of a named one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", help="Name of the experiment; left out: the newest log.")
        parser.add_argument("-f", "--follow", action="store_true", help="Keep showing new lines until Ctrl-C.")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        results = results_dir()
        folder = folder_name(name) if name else None
        logs = [path for path in results.glob("*/logs.txt") if folder in (None, path.parent.name)]
        if not logs:
            raise CommandError(f"There is no log of {name or 'any run'} in {results}.")
        newest = max(logs, key=lambda path: path.stat().st_mtime)
        # A run that was killed may leave half a character at the end of its log.
        with open(newest, encoding="utf-8", errors="replace") as file:
            self.stdout.write(file.read(), ending="")
            try:
                while options["follow"]:
                    time.sleep(0.5)
                    self.stdout.write(file.read(), ending="")
                    self.stdout.flush()
            except KeyboardInterrupt:
                pass
