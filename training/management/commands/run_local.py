import signal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from accounts.commands import person
from datasets_app.selectors import version_for
from engine import Prepared, StepDone, train
from engine.config import RunConfig
from engine.errors import EngineError, Interrupted
from engine.events import Event
from engine.training.results import describe
from training import services
from training.management.commands.train import read_text
from web.commands import refused
from web.errors import LorasiteError


class Command(BaseCommand):
    help = "Train from a YAML file in this process, with a progress bar. Ctrl-C saves; the same command then continues."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="The configuration, for example config/default.yaml.")
        parser.add_argument("--name", help="Name of the experiment, instead of the file's.")

    def handle(self, *args: Any, **options: Any) -> None:
        interrupts: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _frame: interrupts.append(number))
        try:
            config = services.parse_config(read_text(options["file"]))
            if options["name"]:
                config.experiment_name = options["name"]
            self.run(config, options["file"].parent, interrupts)
        except Interrupted:
            raise CommandError("Stopped; the last step is saved. The same command continues from there.") from None
        except LorasiteError as error:
            raise refused(error) from None
        except EngineError as error:
            raise CommandError(str(error)) from None

    def run(self, config: RunConfig, folder: Path, interrupts: list[int]) -> None:
        results = Path(settings.RESULTS_DIR) / config.experiment_name
        events = train(
            config,
            results=results,
            base_models_dir=settings.BASE_MODELS_DIR,
            cache_dir=Path(settings.DATA_DIR) / "cache" / "tokens",
            should_save=lambda: bool(interrupts),
            **find_data(config, folder),
        )
        with tqdm(unit="step", dynamic_ncols=True) as bar:
            for event in events:
                show_event(event, bar)
        self.stdout.write(self.style.SUCCESS(f"The model is in {results / 'artifacts' / 'final_model'}"))


def show_event(event: Event, bar: tqdm) -> None:
    if isinstance(event, Prepared):
        bar.reset(total=event.total_steps)
        bar.update(event.resumed_from_step)
    elif isinstance(event, StepDone):
        bar.update(event.step - bar.n)
        bar.set_postfix(loss=f"{event.loss:.4f}", speed=f"{event.tokens_per_second:.0f} tokens/s", refresh=False)
    else:
        text = describe(event, every=1)
        if text:
            bar.write(text)


def find_data(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Return the engine's arguments for a data file, looked for here and in the YAML's folder, or a platform dataset."""
    for path in (Path(config.data.dataset_name), folder / config.data.dataset_name):
        if path.is_file():
            return {"data_file": path}
    version = version_for(person(None), config.data.dataset_name)
    config.data.text_column = "text"
    config.data.label_column = "label"
    config.data.split_column = "split"
    return {"data_file": version.path, "dataset_hash": version.hash}
