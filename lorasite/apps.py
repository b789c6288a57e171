from django.apps import AppConfig


class LorasiteConfig(AppConfig):
    name = "lorasite"

    def ready(self) -> None:
        # Importing the module registers its checks.
        from . import checks  # noqa: F401
