import signal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from accounts.commands import person, refused
from accounts.errors import LorasiteError
from datasets_app.models import STORED_COLUMNS
from datasets_app.selectors import version_for
from engine import Prepared, StepDone, train
from engine.config import RunConfig
from engine.errors import EngineError, Interrupted
from engine.training.results import describe
from training import services
from training.management.commands.train import read_text
from work.paths import results_dir, token_cache_dir


class Command(BaseCommand):
    help = "Train from a YAML file here and now, with a progress bar. Ctrl-C saves; the same command then goes on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="The configuration, for example config/default.yaml.")
        parser.add_argument("--name", help="Name of the experiment, instead of the file's.")

    def handle(self, *args: Any, **options: Any) -> None:
        asked: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _frame: asked.append(number))
        try:
            config = services.parse_config(read_text(options["file"]))
            if options["name"]:
                config.experiment_name = options["name"]
            self.run(config, options["file"].parent, asked)
        except Interrupted:
            raise CommandError("Stopped; the last step is saved. The same command goes on from there.") from None
        except LorasiteError as error:
            raise refused(error) from None
        except EngineError as error:
            raise CommandError(str(error)) from None

    def run(self, config: RunConfig, beside: Path, asked: list[int]) -> None:
        results = results_dir() / config.experiment_name
        events = train(
            config,
            results=results,
            base_models_dir=settings.BASE_MODELS_DIR,
            cache_dir=token_cache_dir(),
            should_save=lambda: bool(asked),
            **_data(config, beside),
        )
        with tqdm(unit="step", dynamic_ncols=True) as bar:
            for event in events:
                show(event, bar)
        self.stdout.write(self.style.SUCCESS(f"The model is in {results / 'artifacts' / 'final_model'}"))


def show(event: Any, bar: tqdm) -> None:
    if isinstance(event, Prepared):
        bar.reset(total=event.total_steps)
        bar.update(event.resumed_from_step)
    elif isinstance(event, StepDone):
        bar.update(event.step - bar.n)
        bar.set_postfix(loss=f"{event.loss:.4f}", speed=f"{event.tokens_per_second:.0f} tokens/s", refresh=False)
    elif said := describe(event, every=1):
        bar.write(said)


def _data(config: RunConfig, beside: Path) -> dict[str, Any]:
    """A file's path (from here or from beside the YAML), or one of the platform's datasets."""
    for path in (Path(config.data.dataset_name), beside / config.data.dataset_name):
        if path.is_file():
            return {"data_file": path}
    version = version_for(person(None), config.data.dataset_name)
    config.data = config.data.model_copy(update=STORED_COLUMNS)
    return {"data_file": version.path, "dataset_hash": version.hash}
