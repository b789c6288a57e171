from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from accounts.models import User
from datasets_app.services import load_samples
from lorasite.env import BASE_DIR, env
from lorasite.first_start import create_admin
from lorasite.lost_database import refuse_lost_database, write_marker
from training.services import parse_config, submit


class Command(BaseCommand):
    help = "Fill an empty installation: an admin, sample datasets, a sample run. Does nothing if an account exists."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--new", action="store_true", help="Start over even if the database of DATA_DIR was lost.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["new"]:
            refuse_lost_database()
        if not User.objects.exists():
            admin = create_admin()
            if env.samples:
                load_samples(owner=admin)
                submit(user=admin, config=parse_config((BASE_DIR / "config" / "default.yaml").read_text()))
        write_marker()
