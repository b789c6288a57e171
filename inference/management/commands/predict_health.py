import json
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Check the health of a running `serve`; fails if it can't be reached or has no model."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=settings.SERVE_HOST)
        parser.add_argument("--port", type=int, default=settings.SERVE_PORT)

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        address = f"http://[{host}]:{port}/health" if ":" in host else f"http://{host}:{port}/health"
        try:
            with urllib.request.urlopen(address, timeout=30) as response:  # noqa: S310  the scheme is fixed above
                health = json.load(response)
            line = f"{health['status']}: {health['model']} on {health['base_model']} answers at {address}"
        except urllib.error.HTTPError as error:
            raise CommandError(f"{address} answers {error.code}: {error_title(error)}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{address} does not answer ({error}). Start it with `make serve`.") from None
        self.stdout.write(line)


def error_title(error: urllib.error.HTTPError) -> str:
    """Return the title of a problem+json answer; another program on the port answers in its own way."""
    try:
        return str(json.load(error)["title"])
    except (ValueError, KeyError, TypeError):
        return f"{error.reason}. Does another program use this port? `make serve` takes --port."
