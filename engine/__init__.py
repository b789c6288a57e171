"""The trainer: LoRA fine-tuning as a generator of events. Plain Python; knows no Django and no listener.

    for event in train(config, data_file=Path("tweets.parquet"), results=Path("results/tweets")):
        print(event)

Importing this package is quick: torch and transformers are imported when a run starts.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from engine.config import RunConfig
from engine.errors import ConfigError, EngineError, Problem
from engine.events import Checkpointed, Evaluated, Event, Finished, Notice, Prepared, StageChanged, StepDone

__all__ = [
    "Checkpointed",
    "ConfigError",
    "EngineError",
    "Evaluated",
    "Event",
    "Finished",
    "Notice",
    "Prepared",
    "Problem",
    "RunConfig",
    "StageChanged",
    "StepDone",
    "resolve_base_model",
    "train",
    "warm_up",
]


def train(
    config: RunConfig,
    *,
    data_file: Path,
    results: Path,
    base_models_dir: Path | None = None,
    dataset_hash: str | None = None,
    cache_dir: Path | None = None,
    should_save: Callable[[], bool] | None = None,
) -> Generator[Event]:
    """Train an adapter and leave everything in `results`; yields what happens.

    `data_file` is Parquet, CSV, TSV, JSON or JSONL with a text and a label column. A run that was stopped goes on
    from its newest whole checkpoint. Closing the generator cancels within one step and keeps the last checkpoint.
    `should_save` is asked after each step; when it says yes, a checkpoint is written and Interrupted is raised.
    Raises EngineError with a sentence for a person and a code.
    """
    from engine.training.run import Run

    run = Run(config, data_file, results, base_models_dir, dataset_hash, cache_dir, should_save)
    with closing(run.events()) as events:
        yield from events


def resolve_base_model(name: str, base_models_dir: Path | None = None, revision: str | None = None) -> Path:
    """Folder of the base model `name`: sample package, `base_models_dir`, hub cache, or downloaded from the hub.

    Raises BaseModelUnavailable within about three seconds when the hub can't be reached, BaseModelUnsafe when the
    model wants to run code of its own or has pickled weights only.
    """
    from engine.models.base_models import resolve

    return resolve(name, base_models_dir, revision)


def warm_up() -> None:
    """Import all that a run needs, so that a process forked from this one starts at once. Runs no tensor operation."""
    with _hidden("bitsandbytes"):  # peft imports it where it is installed, and it opens CUDA, which no fork survives
        _import_all()
    gc.collect()
    gc.freeze()  # a million objects that stay: no collection of a run looks at them, and forks go on sharing their pages


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Imports of a module fail for now; whoever imports it afterwards gets it."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # see importlib: None means that there is none
    try:
        yield
    finally:
        del sys.modules[module]


def _import_all() -> None:
    import peft
    import sklearn.feature_extraction.text
    import sklearn.linear_model
    import transformers
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from engine.kernels import int8
    from engine.tasks import sequence_classification
    from engine.training import run

    get_checkpoint_conversion_mapping("bert")  # a thousand regular expressions, compiled at first use
    named = ("AutoTokenizer", "AutoModelForSequenceClassification", "BertForSequenceClassification")
    for module, names in ((transformers, (*named, "PreTrainedTokenizerFast")), (peft, ("LoraConfig",))):
        for name in names:
            getattr(module, name)  # these packages import their parts when first named
    if int8.available():
        int8.kernels()
    del run, sequence_classification, sklearn
