import json
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q

from accounts.errors import LorasiteError
from training import services
from training.management.commands.train import person, told
from training.models import Task
from training.serializers import TaskSerializer


class Command(BaseCommand):
    help = "List tasks; cancel or resume one, by its id or its experiment's name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=["list", "cancel", "resume"], default="list")
        parser.add_argument("task", nargs="?", help="Id of the task or name of its experiment.")
        parser.add_argument("--user", help="Who does it; left out: the first admin.")
        parser.add_argument("--limit", type=int, default=20, help="How many of the newest are listed (20).")
        parser.add_argument("--json", action="store_true", help="Print JSON, as the API gives it.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "list":
            tasks = list(Task.objects.select_related("experiment")[: options["limit"]])
        else:
            tasks = [self.change(**options)]
        if options["json"]:
            self.stdout.write(json.dumps(TaskSerializer(tasks, many=True).data, default=str, indent=2))
        else:
            self.table(tasks)

    def change(self, *, action: str, task: str | None, user: str | None, **_options: Any) -> Task:
        change = services.cancel if action == "cancel" else services.resume
        try:
            return change(user=person(user), task=_find(task))
        except LorasiteError as error:
            raise CommandError(told(error)) from None

    def table(self, tasks: list[Task]) -> None:
        if not tasks:
            self.stdout.write("No tasks yet.")
        for task in tasks:
            self.stdout.write(f"{task.pk}  {task.status:9}  {task.percent:3}%  {task.experiment.name}")


def _find(name: str | None) -> Task:
    wanted = str(name or "").strip()
    found = Task.objects.select_related("experiment").filter(Q(experiment__name=wanted) | _by_id(wanted)).first()
    if found is None:
        raise CommandError(f"There is no task {wanted or '(none was named)'}.")
    return found


def _by_id(text: str) -> Q:
    try:
        return Q(pk=UUID(text))
    except ValueError:
        return Q(pk__in=[])
