import os
import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections

from inference.model_server import served_models
from lorasite.model_server import site
from webserver import serve
from work.parent import end_with


class Command(BaseCommand):
    help = "Serve trained models over HTTP, without accounts: POST /predict and GET /health. Stop it with Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--exp", default="", help="Serve only this experiment or registered model; otherwise all of them."
        )
        parser.add_argument("--host", default=settings.SERVE_HOST)
        parser.add_argument("--port", type=int, default=settings.SERVE_PORT)
        parser.add_argument(
            "--end-with-parent",
            action="store_true",
            help="Stop when the process that started this one is killed, as `make serve` wants. Linux only.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["end_with_parent"]:
            end_with(os.getppid())
        require_free(options["host"], options["port"])
        settings.SERVED_MODEL = options["exp"]
        try:
            best = served_models().best()
        except DatabaseError as error:
            raise CommandError(f"The database can't be read ({error}). `make start` creates it.") from error
        if best is None and options["exp"]:
            raise CommandError(
                f"{options['exp']} has left no model. `make db-list` lists what there is; `make start` trains a sample."
            )
        served = site(options["host"], options["port"])
        name = best.name if best else "No model yet"
        self.stdout.write(f"{name} at http://{served.address}/predict (stop with Ctrl-C)")
        self.stdout.flush()
        connections.close_all()  # the serving process is a fork and must not share this one's connections
        serve(served)


def require_free(host: str, port: int) -> None:
    """Raise CommandError if the port is taken, before the server forks and can only log it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"{host}:{port} can't be used ({error.strerror}). Set another port: --port or SERVE_PORT."
            ) from error
