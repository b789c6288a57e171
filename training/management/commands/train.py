import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.errors import LorasiteError
from accounts.models import User
from training import services
from training.models import Status, Task


class Command(BaseCommand):
    help = "Submit a run from a YAML file to the queue, as the page and the API do."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="The configuration, for example config/default.yaml.")
        parser.add_argument("--name", help="Name of the experiment, instead of the file's.")
        parser.add_argument("--user", help="Who submits; left out: the first admin.")
        parser.add_argument("--wait", action="store_true", help="Watch the run to its end; exit status 1 if it failed.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = person(options["user"])
        try:
            config = services.parse_config(read_text(options["file"]))
            if options["name"]:
                config.experiment_name = options["name"]
            task = services.submit(user=user, config=config)
        except LorasiteError as error:
            raise CommandError(told(error)) from None
        self.stdout.write(f"{task.experiment.name}: task {task.pk} ({task.get_status_display()})")
        if options["wait"] and not self.watch(task):
            raise CommandError((task.error or {}).get("message", task.get_status_display()))

    def watch(self, task: Task) -> bool:
        seen = 0
        while True:
            task.refresh_from_db()
            for line in task.log.filter(pk__gt=seen):
                self.stdout.write(line.text)
                seen = line.pk
            if task.finished:
                return task.status == Status.SUCCESS
            time.sleep(1)


def person(name: str | None) -> User:
    """The named user, or the first admin of the installation."""
    people = User.objects.filter(username=name) if name else User.objects.filter(is_superuser=True).order_by("pk")
    found = people.first()
    if found is None:
        raise CommandError(f"There is no user {name}." if name else "There is no admin yet; `make start` creates one.")
    return found


def read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} can't be read: {error}") from None


def told(error: LorasiteError) -> str:
    """The sentence, and each field's below it."""
    lines = [f"  {p['field'] or 'configuration'}: {p['message']}" for p in error.problems]
    return "\n".join([str(error.message), *lines])
