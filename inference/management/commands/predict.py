import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from accounts.errors import LorasiteError
from accounts.models import User
from inference.services import predict


class Command(BaseCommand):
    help = "Predict one text with a finished experiment; the best one when --model is left out."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--text", required=True)
        parser.add_argument("--model", help="An experiment's name.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            admin = User.objects.filter(is_superuser=True).first()
        except DatabaseError as error:
            raise CommandError(f"The database can't be read ({error}). `make start` makes it.") from error
        if admin is None:
            raise CommandError("There is no account yet. Run `make start` once.")
        try:
            (answer,) = predict(user=admin, texts=[options["text"]], model=options["model"])
        except LorasiteError as error:
            raise CommandError(str(error.message)) from None
        self.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2))
