import json
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Ask a running `serve` how it is; fails when it can't be reached or has no model."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=settings.SERVE_HOST)
        parser.add_argument("--port", type=int, default=settings.SERVE_PORT)

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        address = f"http://[{host}]:{port}/health" if ":" in host else f"http://{host}:{port}/health"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  the scheme is in the line above
                found = json.load(answer)
            told = f"{found['status']}: {found['model']} over {found['base_model']} answers at {address}"
        except urllib.error.HTTPError as error:
            raise CommandError(f"{address} answers {error.code}: {title(error)}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{address} does not answer ({error}). Start it with `make serve`.") from None
        self.stdout.write(told)


def title(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["title"])
    except (ValueError, KeyError, TypeError):
        return f"{error.reason}. Is it another program's port? `make serve` takes --port."
