import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.commands import acting_user
from datasets_app.selectors import version_for
from engine.errors import EngineError, RunInterruptedError
from engine.names import folder_name
from engine.training.console import train_in_terminal
from experiments import remedies
from training import services
from training.management.commands.train import read_text
from web.commands import command_error
from web.errors import LorasiteError
from work.paths import results_dir, token_cache_dir


class Command(BaseCommand):
    help = "Train from a YAML file in the foreground, with a progress bar. Ctrl-C saves; the same command then resumes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="The configuration, for example config/default.yaml.")
        parser.add_argument("--name", help="Name of the experiment, instead of the file's.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data = services.read_yaml(read_text(options["file"]))
            if options["name"] and isinstance(data, dict):
                data["experiment_name"] = options["name"]
            # The data: a file, from here or from beside the YAML file, or one of the platform's datasets.
            name = services.dataset_name_of(data) if isinstance(data, dict) else ""
            paths = [path for path in (Path(name), options["file"].parent / name) if path.is_file()]
            user = None if paths or not name else acting_user(None)
            config = services.parse_config(data, user)
            dataset_hash = None
            if user:
                version = version_for(user, name)
                services.check_task(version, config.task)
                paths = [version.path]
                dataset_hash = version.hash
                config.data = config.data.model_copy(update=version.run_columns)
                for notice in services.stored_notices(config, version):
                    self.stdout.write(self.style.WARNING(notice["message"]))
            results = results_dir() / folder_name(config.experiment_name)
            train_in_terminal(
                config,
                data_file=paths[0],
                results=results,
                base_models_dir=settings.BASE_MODELS_DIR,
                dataset_hash=dataset_hash,
                cache_dir=token_cache_dir(),
            )
        except RunInterruptedError as error:
            raise CommandError(f"{error} Run the same command again to resume.") from None
        except KeyboardInterrupt:
            raise CommandError("Stopped before the first step. Run the same command to start again.") from None
        except LorasiteError as error:
            raise command_error(error) from None
        except EngineError as error:
            raise CommandError(str(error)) from None
        diagnosis = remedies.diagnose(
            json.loads((results / "metrics.json").read_bytes()), config.model_dump(mode="json")
        )
        for line in diagnosis.lines() if diagnosis else []:
            self.stdout.write(self.style.WARNING(line))
        self.stdout.write(self.style.SUCCESS(f"The model is in {results / 'artifacts' / 'final_model'}"))
