"""LoRA fine-tuning as a generator of events, in plain Python. docs/engine.md shows how to use it.

    for event in train(config, data_file=Path("tweets.parquet"), results=Path("results/tweets")):
        print(event)

Importing this package is quick: torch and transformers are imported only when a run starts.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from engine.config import RunConfig
from engine.data.labelled_rows import Rows, Split
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
    "Rows",
    "RunConfig",
    "Split",
    "StageChanged",
    "StepDone",
    "import_libraries",
    "resolve_base_model",
    "train",
    "warm_up",
]


def train(
    config: RunConfig,
    *,
    data_file: Path | Rows | Callable[[], Rows],
    results: Path,
    base_models_dir: Path | None = None,
    dataset_hash: str | None = None,
    cache_dir: Path | None = None,
    should_save: Callable[[], bool] | None = None,
) -> Generator[Event]:
    """Train an adapter, write everything to `results` and yield the events of the run.

    data_file: Parquet, CSV, TSV, JSON or JSONL with a text and a label column; or rows that are in memory,
        cleaned and split; or a function that returns such rows when the run needs them.
    dataset_hash: recorded with the model, to say later what it was trained on.
    cache_dir: where tokenised texts are kept for the next run on the same data.
    should_save: called after each step; when it returns true, a checkpoint is saved and RunInterruptedError is raised.

    A run that was stopped resumes from its newest intact checkpoint. Closing the generator cancels the run within one
    step and keeps the last checkpoint. Raises EngineError, with a message for a person and a code.
    """
    from engine.training.run import Run  # deferred: imports torch

    run = Run(config, data_file, results, base_models_dir, dataset_hash, cache_dir, should_save)
    with closing(run.events()) as events:
        yield from events


def resolve_base_model(name: str, base_models_dir: Path | None = None, revision: str | None = None) -> Path:
    """Return the folder of a base model: from a sample package, `base_models_dir`, the hub's cache or the hub itself.

    Raises BaseModelUnavailableError (within about three seconds if the hub cannot be reached), or BaseModelUnsafeError if the
    model needs to run its own code or has pickled weights only.
    """
    from engine.models.base_models import resolve  # deferred: imports the hub client

    return resolve(name, base_models_dir, revision)


def import_libraries() -> None:
    """Import what every run needs before its first step.

    Imports leave a million objects that stay. Garbage collection would visit them again and again, which takes a quarter
    of the time, so it waits until they are there, and never visits them afterwards.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import peft
        import transformers

        import engine.tasks.sequence_classification
        import engine.training.run  # noqa: F401

        # These packages import their parts when an attribute is first used.
        for name in (
            "AutoTokenizer",
            "AutoModelForSequenceClassification",
            "BertForSequenceClassification",
            "PreTrainedTokenizerFast",
        ):
            getattr(transformers, name)
        getattr(peft, "LoraConfig")  # noqa: B009
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def warm_up() -> None:
    """Import everything that a run needs, so that processes forked from this one start at once.

    Runs no tensor operation, because threads that exist before a fork do not survive it.
    """
    # PEFT imports bitsandbytes if it is installed, and that opens CUDA, which does not survive a fork either.
    with _hidden("bitsandbytes"):
        import_libraries()
        import sklearn.feature_extraction.text
        import sklearn.linear_model  # noqa: F401
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        with suppress(ImportError):  # polars is missing where runs get their rows in memory
            import engine.data.rows  # noqa: F401
        from engine.kernels import int8

        get_checkpoint_conversion_mapping("bert")  # compiles a thousand regular expressions at its first use
        if int8.available():
            int8.kernels()
    # Forked processes keep sharing the pages of objects that garbage collection need not visit. One object in 70 could be collected
    # before; to find those takes half a second.
    gc.freeze()


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make imports of a module fail inside of the block, unless it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # importlib treats None as "there is no such module"
    try:
        yield
    finally:
        del sys.modules[module]
