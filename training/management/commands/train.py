import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.commands import acting_user
from engine.safe_yaml import NotYamlError, text_of
from experiments import remedies
from training import services
from training.models import Status, Task
from training.serializers import TaskSerializer
from web.commands import MISSING, MISUSED, JsonOrTextCommand, add_user_and_json_options


class Command(JsonOrTextCommand):
    help = "Submit a run from a YAML file to the queue, as the page and the API do."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="The configuration, for example config/default.yaml.")
        parser.add_argument("--name", help="Name of the experiment, instead of the file's.")
        parser.add_argument(
            "--wait", action="store_true", help="Show the log until the run ends; exit status 1 if it failed."
        )
        add_user_and_json_options(parser)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = acting_user(options["user"])
        data = services.read_yaml(read_text(options["file"]))
        if options["name"] and isinstance(data, dict):
            data["experiment_name"] = options["name"]
        config = services.parse_config(data, user)
        task = services.submit(user=user, config=config)
        early_notices = list(task.notices)  # before the engine adds its own, which the log has
        if options["wait"] and not self.watch(task):
            raise CommandError((task.explained_error or {}).get("message", task.get_status_display()))
        lines = [f"{task.experiment.name}: task {task.pk} ({task.get_status_display()})"]
        lines += [notice["message"] for notice in early_notices]
        if options["wait"]:
            task.experiment.refresh_from_db()
            diagnosis = remedies.diagnose(task.experiment.metrics, task.experiment.config)
            lines += diagnosis.lines() if diagnosis else []
        return TaskSerializer(task).data, lines

    def watch(self, task: Task) -> bool:
        """Write the log to standard error, so that --json prints JSON only; return whether the run succeeded."""
        last_line = 0
        while True:
            task.refresh_from_db()
            for line in task.log.filter(pk__gt=last_line):
                self.stderr.write(line.text, lambda text: text)
                last_line = line.pk
            if task.finished:
                return task.status == Status.SUCCESS
            time.sleep(1)


def read_text(file: Path) -> str:
    """Return the text of a configuration file; raise CommandError if it cannot be read."""
    try:
        return text_of(file)
    except NotYamlError as error:
        raise CommandError(f"{file}: {error}", returncode=MISUSED) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} can't be read: {error}", returncode=MISSING) from None
