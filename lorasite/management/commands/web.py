from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "The web server alone, for a machine or container whose Redis and worker run elsewhere."

    def handle(self, *args: Any, **options: Any) -> None:
        from lorasite.web import serve

        serve()
