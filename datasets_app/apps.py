from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DatasetsConfig(AppConfig):
    name = "datasets_app"
    verbose_name = _("Datasets")

    def ready(self) -> None:
        from . import selectors  # noqa: F401  (what it counts for quotas)
