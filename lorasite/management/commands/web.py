from typing import Any

from django.core.management.base import BaseCommand

from lorasite.private_files import keep_private
from lorasite.supervisor import say


class Command(BaseCommand):
    help = "The web server alone, for a machine or container whose Redis and worker run elsewhere."

    def handle(self, *args: Any, **options: Any) -> None:
        from lorasite.web_server import serve

        for line in keep_private():
            say(line)
        serve()
