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

# One thread computes, and requests that wait together fill a batch. /health may load a model, so /healthz has its own lane.
LANES = {"predictions": 32, "health": 1, "alive": 1}


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
        host, port = options["host"], options["port"]
        require_free(host, port)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        models = only(options["exp"]) if options["exp"] else all_models()
        model_name = best_model_name(models, options["exp"])
        self.stdout.write(f"{model_name or 'No model yet'} at http://{address}/predict (stop with Ctrl-C)")
        self.stdout.flush()
        connections.close_all()  # the serving process is a fork and must not share this one's connections
        serve(
            Site(
                load=lambda: preload(Server(models)),
                address=address,
                name="lorasite-serve",
                lanes=LANES,
                lane_of=lane_of,
                body_limit=lambda head: BODY_LIMIT,
                log_level="warning",
                stall_seconds=600,  # loading the first model counts
            )
        )


def best_model_name(models: Models, name: str) -> str:
    """Return the name of the model that answers requests without a model name; empty if there is none yet."""
    try:
        best = models.best()
    except DatabaseError as error:
        raise CommandError(f"The database can't be read ({error}). `make start` creates it.") from error
    if best is None and name:
        raise CommandError(
            f"{name} has left no model. `make db-list` lists what there is; `make start` trains a sample."
        )
    return best.name if best else ""


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


def lane_of(head: Head) -> str:
    lanes = {"/healthz": "alive", "/health": "health", "/metrics": "health"}
    return lanes.get(head.path.rstrip("/"), "predictions")


def preload(server: Server) -> Server:
    """Load the best model before the first request. Call it after the fork, which torch's threads do not survive."""
    with contextlib.suppress(LorasiteError):  # /health reports it
        server.health()
    return server
