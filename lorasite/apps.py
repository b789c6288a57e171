from django.apps import AppConfig


class LorasiteConfig(AppConfig):
    name = "lorasite"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers them)
