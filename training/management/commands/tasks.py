from typing import Any
from uuid import UUID

from django.core.management.base import CommandParser
from django.db.models import Q

from accounts.commands import person
from accounts.models import User
from training import selectors, services
from training.models import Task
from training.serializers import TaskSerializer
from web.commands import Answering, columns, who_and_how
from web.errors import NotFound


class Command(Answering):
    help = "List tasks; cancel or resume one, by its id or its experiment's name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=["list", "cancel", "resume"], default="list")
        parser.add_argument("task", nargs="?", help="Id of the task or name of its experiment.")
        parser.add_argument("--limit", type=int, default=20, help="How many of the newest are listed (20).")
        who_and_how(parser)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = person(options["user"])
        if options["action"] == "list":
            tasks = list(selectors.tasks_for(user)[: options["limit"]])
        else:
            change = services.cancel if options["action"] == "cancel" else services.resume
            tasks = [change(user=user, task=_managed(user, options["task"]))]
        rows = [[task.pk, task.status, f"{task.percent} %", task.experiment.name] for task in tasks]
        lines = columns([["task", "status", "done", "experiment"], *rows]) if rows else ["No tasks yet."]
        return TaskSerializer(tasks, many=True).data, lines


def _managed(user: User, name: str | None) -> Task:
    wanted = str(name or "").strip()
    found = selectors.tasks_for(user).filter(Q(experiment__name=wanted) | _by_id(wanted)).first()
    if found is None:
        raise NotFound(f"There is no task {wanted or '(none was named)'}.")
    return selectors.managed_task(user, found.pk)


def _by_id(text: str) -> Q:
    try:
        return Q(pk=UUID(text))
    except ValueError:
        return Q(pk__in=[])
