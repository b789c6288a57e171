from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_delete
from django.utils.translation import gettext_lazy as _


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("Accounts")
    default = True

    def ready(self) -> None:
        # Models can only be imported once the apps are loaded.
        from . import rights  # noqa: F401  (its signal receivers)
        from .permissions import forget_shares

        post_delete.connect(forget_shares)


class AdminConfig(admin_apps.AdminConfig):
    default = False
    default_site = "web.admin_site.AdminSite"
