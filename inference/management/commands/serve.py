import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from gunicorn.app.base import BaseApplication

from accounts.errors import LorasiteError
from experiments.models import Experiment
from inference.server import Server


class Command(BaseCommand):
    help = "Serve trained models over HTTP, without accounts: POST /predict and GET /health. Ctrl-C ends it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--exp", default="", help="Serve this experiment only; else all, and the best by itself.")
        parser.add_argument("--host", default=settings.SERVE_HOST)
        parser.add_argument("--port", type=int, default=settings.SERVE_PORT)

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        require_free(host, port)
        try:
            server = served(options["exp"])
        except LorasiteError as error:
            raise CommandError(str(error.message)) from None
        self.stdout.write(f"{server.default} at http://{host}:{port}/predict (Ctrl-C ends it)")
        Application(server, f"{host}:{port}").run()


def served(name: str) -> Server:
    """The finished experiments, the best one first; only `name` when given."""
    ready = Experiment.objects.filter(accuracy__isnull=False).order_by("-accuracy").only("name")
    models = {experiment.name: experiment.final_model for experiment in ready if name in ("", experiment.name)}
    if not models:
        what = f"{name} has left no model" if name else "There is no trained model"
        raise CommandError(f"{what}. `make db-list` shows what there is; `make start` trains a sample.")
    return Server(models, next(iter(models)))


def require_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"{host}:{port} can't be used ({error.strerror}). Set another port: --port or SERVE_PORT."
            ) from error


class Application(BaseApplication):  # type: ignore[misc]
    """gunicorn, one process with threads, so that a model is loaded once."""

    def __init__(self, server: Server, address: str) -> None:
        self.server, self.address = server, address
        super().__init__()

    def load_config(self) -> None:
        chosen = {"bind": self.address, "worker_class": "gthread", "threads": 4, "graceful_timeout": 5}
        for name, value in {**chosen, "control_socket_disable": True, "loglevel": "warning"}.items():
            self.cfg.set(name, value)

    def load(self) -> Server:
        return self.server
