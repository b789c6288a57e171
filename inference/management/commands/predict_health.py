import json
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Ask a running `serve` how it is; fails when it can't be reached."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=settings.SERVE_HOST)
        parser.add_argument("--port", type=int, default=settings.SERVE_PORT)

    def handle(self, *args: Any, **options: Any) -> None:
        address = f"http://{options['host']}:{options['port']}/health"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                health = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise CommandError(f"{address} does not answer ({error}). Start it with `make serve`.") from None
        self.stdout.write(f"{health['status']}: {health['model']} over {health['base_model']} answers at {address}")
