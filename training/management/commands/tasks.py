from contextlib import suppress
from typing import Any
from uuid import UUID

from django.core.management.base import CommandParser
from django.db.models import Q

from accounts.commands import acting_user
from accounts.models import User
from training import selectors, services
from training.models import Task
from training.serializers import TaskSerializer
from web.commands import JsonOrTextCommand, add_user_and_json_options, align_columns
from web.errors import NotFoundError


class Command(JsonOrTextCommand):
    help = "List tasks; cancel or resume one, by its id or its experiment's name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=["list", "cancel", "resume"], default="list")
        parser.add_argument("task", nargs="?", help="Id of the task or name of its experiment.")
        parser.add_argument("--limit", type=int, default=20, help="How many of the newest tasks to list (20).")
        add_user_and_json_options(parser)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = acting_user(options["user"])
        if options["action"] == "list":
            tasks = list(selectors.visible_tasks(user)[: options["limit"]])
        else:
            change = services.cancel if options["action"] == "cancel" else services.resume
            tasks = [change(user=user, task=find_task(user, options["task"]))]
        rows = [[task.pk, task.status, f"{task.percent}%", task.experiment.name] for task in tasks]
        lines = align_columns([["task", "status", "done", "experiment"], *rows]) if rows else ["No tasks yet."]
        return TaskSerializer(tasks, many=True).data, lines


def find_task(user: User, name: str | None) -> Task:
    """Return the task with this id or experiment name, if the person may cancel and resume it."""
    name = str(name or "").strip()
    condition = Q(experiment__name=name)
    with suppress(ValueError):  # not a UUID
        condition |= Q(pk=UUID(name))
    task = selectors.visible_tasks(user).filter(condition).first()
    if task is None:
        raise NotFoundError(f"There is no task {name or '(none was named)'}.")
    return selectors.task_for(user, task.pk, manage=True)
