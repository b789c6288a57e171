"""Run one small training again and again, each time with a fault at the next place where it touches a file.

    python -m engine.tests.faults kill|full|refuse FOLDER DATA CONFIG BASES EVERY

kill: SIGKILL. full: this one call finds the disk full. refuse: from here on no file takes more than 64 bytes, whoever
writes it, native code too.

Prints a line of JSON per place: what was touched, how the broken run ended, and whether the same run, started again
without a fault, ended in the same bytes. Imports once and forks for each broken run, as a worker does; the runs without
a fault share one more process.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from engine import EngineError, RunConfig, train, warm_up

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
LIMIT = 400  # places; a run that touches more is no small one


class Faults:
    """Counts what changes files below a folder, and does `strike` at the n-th."""

    def __init__(self, folder: Path, at: int | None, strike: Callable[[], None]) -> None:
        self.folder = str(folder)
        self.at = at
        self.strike = strike
        self.places: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES and not (event == "open" and _writes(arguments)):
            return
        path = str(arguments[0])
        if not path.startswith(self.folder) or path.endswith("logs.txt"):
            return
        self.places.append(f"{event} {path.removeprefix(self.folder)}")
        if len(self.places) == self.at:
            self.strike()


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if isinstance(arguments[2], int) else 0
    return isinstance(arguments[0], str | os.PathLike) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(28, "No space left on device")


def refuse() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))


def forked(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a process of its own, or the name of the signal that ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, json.dumps(work()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(output) if output else signal.Signals(os.WTERMSIG(status)).name


STRIKES = {"kill": kill, "full": full, "refuse": refuse}


def main(kind: str, folder: Path, data: Path, config: RunConfig, bases: Path, every: int) -> None:
    def run(results: Path, at: int | None = None) -> dict[str, Any]:
        faults = Faults(results, at, STRIKES[kind])
        try:
            losses = [event.loss for event in train(config, data_file=data, results=results, base_models_dir=bases)
                      if hasattr(event, "loss")]  # fmt: skip
        except EngineError as error:
            return {"code": error.code, "message": str(error), "places": faults.places}
        return {"code": "", "places": faults.places, "losses": losses}

    def adapter(results: Path) -> str:
        return (results / "artifacts/final_model/adapter_model.safetensors").read_bytes().hex()

    whole = forked(lambda: run(folder / "whole"))
    places = list(enumerate(whole["places"][:LIMIT], 1))[::every]
    broken_runs = [forked(partial(run, folder / f"{kind}-{at}", at)) for at, _place in places]
    runs_again = forked(lambda: [run(folder / f"{kind}-{at}") for at, _place in places])
    for (at, place), broken, again in zip(places, broken_runs, runs_again, strict=True):
        results = folder / f"{kind}-{at}"
        same = again["code"] == "" and adapter(results) == adapter(folder / "whole")
        drafts = [str(path) for path in results.rglob(".draft-*")]
        print(json.dumps({"place": place, "broken": broken, "again": again, "same": same, "drafts": drafts}))


if __name__ == "__main__":
    warm_up()
    kind, folder, data, config, bases, every = sys.argv[1:]
    main(kind, Path(folder), Path(data), RunConfig.parse(json.loads(config)), Path(bases), int(every))
