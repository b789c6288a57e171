import contextlib
import os
import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections

from inference.selectors import Models, all_models, only
from inference.server import BODY_LIMIT, Server
from web.errors import LorasiteError
from webserver import Head, Site, serve
from work.parent import end_with

# Callers that wait together fill a batch; one thread computes. /health may load a model, so /healthz does not wait for it.
LANES = {"predictions": 32, "health": 1, "alive": 1}


class Command(BaseCommand):
    help = "Serve trained models over HTTP, without accounts: POST /predict and GET /health. Ctrl-C ends it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--exp", default="", help="Serve this experiment or registered model only; else all of them."
        )
        parser.add_argument("--host", default=settings.SERVE_HOST)
        parser.add_argument("--port", type=int, default=settings.SERVE_PORT)
        parser.add_argument(
            "--end-with-parent",
            action="store_true",
            help="End when the process that started this one is killed; `make serve` asks for it. Linux only.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["end_with_parent"]:
            end_with(os.getppid())
        host, port = options["host"], options["port"]
        require_free(host, port)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        models = only(options["exp"]) if options["exp"] else all_models()
        first = best(models, options["exp"])
        self.stdout.write(f"{first or 'No model yet'} at http://{address}/predict (Ctrl-C ends it)")
        self.stdout.flush()
        connections.close_all()  # the process that answers is a fork, and must not share this one's
        serve(
            Site(
                load=lambda: loaded(Server(models)),
                address=address,
                name="lorasite-serve",
                lanes=LANES,
                lane_of=lane_of,
                body_limit=lambda head: BODY_LIMIT,
                log_level="warning",
                stall_seconds=600,  # loading the first model counts
            )
        )


def best(models: Models, name: str) -> str:
    """The name of the model that answers where a request names none; empty while there is none at all."""
    try:
        first = models.best()
    except DatabaseError as error:
        raise CommandError(f"The database can't be read ({error}). `make start` makes it.") from error
    if first is None and name:
        raise CommandError(
            f"{name} has left no model. `make db-list` shows what there is; `make start` trains a sample."
        )
    return first.name if first else ""


def require_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"{host}:{port} can't be used ({error.strerror}). Set another port: --port or SERVE_PORT."
            ) from error


def lane_of(head: Head) -> str:
    return {"/healthz": "alive", "/health": "health", "/metrics": "health"}.get(head.path.rstrip("/"), "predictions")


def loaded(server: Server) -> Server:
    """Load the model before the first request. Called after the fork, because torch's threads outlive none."""
    with contextlib.suppress(LorasiteError):  # /health says it
        server.health()
    return server
