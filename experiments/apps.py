from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ExperimentsConfig(AppConfig):
    name = "experiments"
    verbose_name = _("Experiments")

    def ready(self) -> None:
        from . import selectors  # noqa: F401  (what it counts for quotas)
        from .registry import selectors as registered  # noqa: F401
