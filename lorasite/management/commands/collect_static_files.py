from typing import Any

from django.core.management.base import BaseCommand

from lorasite.static_files import collect_static_files


class Command(BaseCommand):
    help = (
        "Fill STATIC_ROOT with hashed, compressed files. The web server does so itself; this is for building an image."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        collect_static_files()
