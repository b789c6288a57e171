"""The files of a run in results/<experiment>/: config.yaml, metrics.json, logs.txt and the final model."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.data.labelled_rows import explain_skipped
from engine.events import Checkpointed, Evaluated, Event, Finished, Notice, Prepared, StageChanged, StepDone
from engine.sentences import Sentence, gettext_noop, join
from engine.storage import disk_errors, sweep_drafts, write_json, write_text
from engine.task_types import METRICS


class Results:
    """The folder of one experiment. Of several processes, only the main one writes."""

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self.checkpoints = self.artifacts / "checkpoints"
        self.final_model = self.artifacts / "final_model"  # the adapter, its tokenizer and its label names
        self.writes = writes
        if not writes:
            return
        with disk_errors(folder):
            self.artifacts.mkdir(parents=True, exist_ok=True)
        sweep_drafts(folder)
        sweep_drafts(self.artifacts)

    def begin(self, config: RunConfig) -> None:
        """Write the complete configuration, and remove the metrics of an earlier run: this one has not finished."""
        if self.writes:
            write_text(self.folder / "config.yaml", config.to_yaml())
            (self.folder / "metrics.json").unlink(missing_ok=True)
            (self.artifacts / "wrong_rows.json").unlink(missing_ok=True)

    def finish(self, metrics: dict[str, Any], wrong_rows: list[dict[str, Any]]) -> None:
        """Write metrics.json. Its presence means that the run has finished, so it is written last.

        wrong_rows: written to artifacts/wrong_rows.json. Every list of runs reads metrics.json, so they are no part of it.
        """
        if wrong_rows:
            write_json(self.artifacts / "wrong_rows.json", wrong_rows)
        write_json(self.folder / "metrics.json", metrics)

    def log(self, line: str) -> None:
        """Append a line to logs.txt, after the time in UTC. Raises DiskError."""
        if not self.writes:
            return
        with disk_errors(self.folder / "logs.txt"), (self.folder / "logs.txt").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")


def describe(event: Event, every: int) -> str | None:
    """Return an event as one line of text, for logs and the terminal.

    Returns None for most steps: only every `every`-th and the last have a line.
    """
    match event:
        case StageChanged(stage=stage):
            # The pages know the names of the stages.
            return Sentence(gettext_noop("Stage: {stage}."), stage=Sentence(stage))
        case Prepared():
            return describe_prepared(event)
        case StepDone(step=step, total_steps=total) if step % every == 0 or step == total:
            return Sentence(
                gettext_noop(
                    "Step {step}/{total}: loss {loss:.4f}, learning rate {rate:.2e}, {speed:,.0f} tokens/s, {left:.0f} s left."
                ),
                step=step,
                total=total,
                loss=event.loss,
                rate=event.learning_rate,
                speed=event.tokens_per_second,
                left=event.eta_seconds,
            )
        case Evaluated(step=step, metrics=metrics):
            scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            return Sentence(gettext_noop("Evaluation at step {step}: {scores}."), step=step, scores=scores)
        case Checkpointed(step=step, kept=kept):
            names = ", ".join(f"{name} {kept_step}" for name, kept_step in kept.items())
            return Sentence(gettext_noop("Checkpoint at step {step}. Kept: {names}."), step=step, names=names)
        case Notice(message=message):
            return message
        case Finished():
            metric = METRICS[event.metrics["task"]][0]
            return Sentence(
                gettext_noop(
                    "Finished: evaluation {metric} {score:.4f}. The final model is saved and was loaded as a check."
                ),
                metric=metric.replace("_", " "),
                score=event.metrics["eval"][metric],
            )
        case _:
            return None


def describe_prepared(event: Prepared) -> str:
    """Return what a run trains on, and where."""
    skipped: str = Sentence(gettext_noop("{count} rows skipped"), count=event.skipped_rows)
    if event.skipped_by_reason:
        reasons = explain_skipped(event.skipped_by_reason)
        skipped = Sentence(gettext_noop("{skipped} ({reasons})"), skipped=skipped, reasons=reasons)
    rows: str = Sentence(
        gettext_noop("{train} training rows, {eval} evaluation rows"), train=event.train_rows, eval=event.eval_rows
    )
    if event.labels:
        rows = join([rows, Sentence(gettext_noop("{count} labels"), count=len(event.labels))])
    return Sentence(
        gettext_noop(
            "{rows}; {truncated} texts truncated, {skipped}. {device}, {precision}; "
            "{trained:,} of {all:,} parameters are trained. {steps} steps, starting from step {first}."
        ),
        rows=rows,
        truncated=event.truncated_rows,
        skipped=skipped,
        device=event.device,
        precision=event.precision,
        trained=event.trainable_parameters,
        all=event.total_parameters,
        steps=event.total_steps,
        first=event.resumed_from_step,
    )
