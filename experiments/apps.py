from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ExperimentsConfig(AppConfig):
    name = "experiments"
    verbose_name = _("Experiments")

    def ready(self) -> None:
        # Imported for their side effect: they register what they count for a person's quota.
        from . import selectors  # noqa: F401
        from .registry import exports  # noqa: F401
        from .registry import selectors as registry_selectors  # noqa: F401
