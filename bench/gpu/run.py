"""The whole run: prepare, check, time training, time serving; each part within its share of the time."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.gpu.processes import Clock, WorkerError, rows_of
from bench.gpu.report import Report, number, text
from bench.gpu.settings import FULL, SMALL
from bench.gpu.wheels import WheelError, unpack_missing

# Each part has to end when this share of the whole time has passed; what an earlier one leaves, the next one may use.
CHECKS_END, TRAINING_END, SERVING_END = 0.33, 0.78, 0.98
ROUNDS = 3  # of training at most; further rounds begin only if they can be finished in time
CONTENDERS = ("Trainer + PEFT", "Lorasite")

CHECK_COLUMNS = [("check", text("check")), ("result", text("result")), ("measured", text("measured")),
                 ("s", number("seconds", 1))]  # fmt: skip
TRAINING_COLUMNS = [
    ("base model", text("shape")), ("tokens", number("tokens")), ("rows", number("rows")), ("what", text("contender")),
    ("real tokens/s", number("tokens_per_second")), ("ratio", number("ratio", 2)), ("ms/step", number("step_ms", 1)),
    ("MFU", number("mfu_percent", 1, " %")), ("memory", number("memory_mb", 0, " MiB")),
    ("first step", number("first_step_s", 1, " s")), ("precision", text("precision")), ("", text("error")),
]  # fmt: skip
SERVING_COLUMNS = [
    ("adapters", number("adapters")), ("callers", number("callers")), ("requests/s", number("requests_per_second")),
    ("p50", number("p50_ms", 1, " ms")), ("p95", number("p95_ms", 1, " ms")), ("loading", number("load_s", 1, " s")),
    ("memory", number("memory_mb", 0, " MiB")), ("", text("error")),
]  # fmt: skip


class GpuBench:
    """One run with its report; `failed` becomes true with the first bad check or part."""

    def __init__(self, device: str, small: bool, minutes: float, out: Path, folder: Path) -> None:
        self.small = small
        self.settings = SMALL if small else FULL
        self.clock = Clock(60 * minutes)
        self.report = Report(out)
        self.packages: dict[str, Path] = {}  # folders of unpacked wheels
        self.log = out / "log.txt"
        self.task: dict[str, Any] = {"device": device, "small": small, "folder": str(folder)}
        self.machine: dict[str, Any] = {}
        self.failed = False

    def rows(self, work: str, end: float, **task: Any) -> Any:
        """Return the rows of a worker that has to end when the share `end` of the time has passed."""
        # PEFT imports bitsandbytes wherever it finds it, which would slow down every other start.
        import_path = [path for name, path in self.packages.items() if name != "bitsandbytes" or work == "check"]
        return rows_of(self.task | {"work": work} | task, self.clock.left_until(end), self.log, import_path)

    def prepare(self) -> None:
        """Write the base models and print what the machine is. Without that, nothing else can be measured."""
        self.machine = next(iter(list(self.rows("prepare", CHECKS_END))))
        self.task["device"] = self.machine["device"]
        self.report.record("machine", self.machine)
        self.report.say(f"# {self.machine['name']}{' (small sizes)' if self.small else ''}")
        self.report.say()
        peak, measured = (f"{self.machine[key] / 1e12:,.2f} TFLOP/s" for key in ("peak", "measured"))
        self.report.say(
            f"{self.machine['versions']}. Peak {peak} ({self.machine['peak_source']}); "
            f"a measured {self.machine['dtype']} product {measured}."
        )

    def check(self) -> None:
        """Print the table of checks."""
        self.report.start("checks", "Checks", CHECK_COLUMNS)
        try:
            for row in self.rows("check", CHECKS_END):
                self.report.row(row)
                self.failed |= row["result"] == "FAILED"
        except WorkerError as error:
            self.report.row({"check": "the checks", "result": "FAILED", "measured": str(error)})
            self.failed = True

    def train(self) -> None:
        """Print the table of training: rounds of all settings, in each of which the contenders take turns."""
        self.report.start("training", "Training", TRAINING_COLUMNS)
        speeds: dict[tuple[int, str], list[float]] = defaultdict(list)
        for count in range(ROUNDS):
            started = self.clock.passed
            for setting in range(len(self.settings.training)):
                for contender in CONTENDERS[:: -1 if count % 2 else 1]:
                    self._time_contender(setting, contender, speeds)
            if self.clock.passed - started > self.clock.left_until(TRAINING_END):
                break
        self._summarize(speeds)

    def serve(self) -> None:
        """Print the table of serving."""
        self.report.start("serving", "Serving", SERVING_COLUMNS)
        try:
            for row in self.rows("serve", SERVING_END):
                self.report.row(row)
        except WorkerError as error:
            self.report.row({"error": str(error)})
            self.failed = True

    def _time_contender(self, index: int, contender: str, speeds: dict[tuple[int, str], list[float]]) -> None:
        setting = self.settings.training[index]
        row = {"shape": setting.shape.name, "tokens": setting.tokens, "rows": setting.rows, "contender": contender}
        try:
            for measured in self.rows("train", TRAINING_END, setting=index, contender=contender):
                row |= measured
        except WorkerError as error:
            self.report.row(row | {"error": str(error)})
            self.failed = True
            return
        row["mfu_percent"] = 100 * row["tokens_per_second"] * row["flops_per_token"] / self.machine["peak"]
        other = speeds[index, CONTENDERS[0]]
        if contender == CONTENDERS[1] and other:
            row["ratio"] = row["tokens_per_second"] / other[-1]
        speeds[index, contender].append(row["tokens_per_second"])
        self.report.row(row)

    def _summarize(self, speeds: dict[tuple[int, str], list[float]]) -> None:
        self.report.say()
        for index, setting in enumerate(self.settings.training):
            theirs, ours = (speeds[index, name] for name in CONTENDERS)
            if theirs and ours:
                self.report.say(
                    f"- {setting.shape.name}, {setting.tokens} tokens, {setting.rows} rows: {fmean(ours):,.0f} against "
                    f"{fmean(theirs):,.0f} real tokens/s, {fmean(ours) / fmean(theirs):.2f} times (means of {len(ours)})"
                )


def run(device: str, small: bool, minutes: float, out: Path, wheels: Path, parts: list[str]) -> int:
    """Run the parts and return the exit status: 0 if every check was good and every part finished."""
    with tempfile.TemporaryDirectory(prefix="lorasite-gpu-") as folder:
        bench = GpuBench(device, small, minutes, out, Path(folder) / "bases")
        try:
            bench.packages = unpack_missing(wheels, Path(folder) / "packages")
            bench.prepare()
        except (WheelError, WorkerError) as error:
            bench.report.say(f"Nothing could be measured: {error}. {bench.log} has the details.")
            return 1
        for part in parts:
            getattr(bench, part)()
        bench.report.say()
        bench.report.say(
            f"{bench.clock.passed:.0f} s in all; {'something FAILED' if bench.failed else 'nothing failed'}."
        )
    return int(bench.failed)
