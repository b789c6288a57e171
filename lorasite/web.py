"""The web server: gunicorn, one process with threads, so that a model is loaded once and shared by all requests."""

from typing import Any

from gunicorn.app.base import BaseApplication

from lorasite.env import env


class Web(BaseApplication):
    def load_config(self) -> None:
        for name, value in {
            "bind": f"{env.host}:{env.port}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": 8,
            "timeout": 120,
            "graceful_timeout": 5,
            "control_socket_disable": True,
            "proc_name": "lorasite-web",
        }.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        from lorasite.wsgi import application

        return application


def serve() -> None:
    Web().run()
