from typing import Any

from django.core.management.base import BaseCommand

from lorasite.file_permissions import restrict_file_permissions
from lorasite.supervisor import say
from lorasite.web_server import serve


class Command(BaseCommand):
    help = "Run the web server alone, for a machine or container whose Redis and workers run elsewhere."

    def handle(self, *args: Any, **options: Any) -> None:
        for line in restrict_file_permissions():
            say(line)
        serve()
