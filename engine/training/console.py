"""Train in the terminal: a progress bar, one line of text per event, and a Ctrl-C that saves before it stops."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from engine import train
from engine.config import RunConfig
from engine.data.labelled_rows import Rows
from engine.events import Event, Prepared, StageChanged, StepDone
from engine.training.results import describe

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def train_in_terminal(
    config: RunConfig,
    *,
    data_file: Path | Callable[[], Rows],
    results: Path,
    base_models_dir: Path | None = None,
    dataset_hash: str | None = None,
    cache_dir: Path | None = None,
    quiet: bool = False,
) -> None:
    """Train in the foreground and show the progress on standard error, unless `quiet`. Call from the main thread.

    Ctrl-C and SIGTERM let the current step finish, save a checkpoint and raise RunInterruptedError. Before the first step there
    is nothing to save, so until then they act as usual. The other arguments and errors are those of engine.train.
    """
    stop_requests: list[int] = []
    events = train(
        config,
        data_file=data_file,
        results=results,
        base_models_dir=base_models_dir,
        dataset_hash=dataset_hash,
        cache_dir=cache_dir,
        should_save=lambda: bool(stop_requests),
    )
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        with tqdm(unit="step", dynamic_ncols=True, disable=quiet) as bar, closing(events):
            for event in events:
                if not quiet:
                    show(event, bar)
                if isinstance(event, Prepared):
                    for number in STOP_SIGNALS:
                        signal.signal(number, lambda received, _frame: stop_requests.append(received))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def show(event: Event, bar: tqdm) -> None:
    """Show an event: stages and steps in the progress bar, all others as a line above it."""
    if isinstance(event, StageChanged):
        bar.set_description(event.stage)
    elif isinstance(event, StepDone):
        bar.set_postfix(loss=f"{event.loss:.4f}", speed=f"{event.tokens_per_second:,.0f} tokens/s", refresh=False)
        bar.update(event.step - bar.n)
    else:
        text = describe(event, every=1)
        if text is not None:
            bar.write(text, file=sys.stderr)
    if isinstance(event, Prepared):
        bar.reset(total=event.total_steps)
        bar.update(event.resumed_from_step)
