"""A run from its first to its last event: prepare, train, evaluate, save, done."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import devices, tasks
from engine.config import RunConfig
from engine.data.batches import BatchSchedule
from engine.data.labelled_rows import Rows
from engine.errors import ConfigError, EngineError, OutOfMemoryError, Problem
from engine.events import Event, Finished, Notice, Prepared, StageChanged
from engine.memory_limits import free_bytes
from engine.models import base_models
from engine.models.loading import parameter_counts
from engine.models.supported_types import check_type
from engine.models.weight_files import read_config
from engine.out_of_memory import is_out_of_memory
from engine.sentences import Sentence, gettext_noop
from engine.storage import disk_errors, write_folder
from engine.task_types import head_of
from engine.training.checkpoint import Checkpoints, load_adapter, save_adapter
from engine.training.distributed import World
from engine.training.loop import Loop
from engine.training.notices import data_notices
from engine.training.results import Results, describe
from engine.training.saved_model import SavedModelCheck
from engine.training.verdict import explain, judge
from engine.waiting_threads import watch_other_programs

# Settings of where a run computes, not of what: a run may be resumed with others.
NOT_IN_FINGERPRINT: dict[str, Any] = {
    "system": True,
    "experiment_name": True,
    "training": {"device", "precision"},
}
# Settings that runs of the last release do not have: they resume as long as these have their defaults.
NEW_SETTINGS = {
    "model": ("chat_template",),
    "data": ("text_pair_column",),
    "training": ("loss", "focal_gamma", "huber_delta", "dpo_beta", "label_smoothing", "rpo_alpha"),
}
LEAST_BYTES = 128 * 2**20  # that any run takes beside its weights


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run that is ready for its first step, or for the next one if it was resumed."""

    plan: devices.DevicePlan
    task: tasks.Task
    loop: Loop
    notices: list[Notice]

    def event(self) -> Prepared:
        """Return the event that announces what will be trained."""
        facts = self.task.facts
        trainable, total = parameter_counts(self.task.model)
        return Prepared(
            total_steps=self.loop.total_steps,
            train_rows=facts["train_rows"],
            eval_rows=facts["eval_rows"],
            truncated_rows=facts["truncated_rows"],
            skipped_rows=facts["skipped_rows"],
            skipped_by_reason=facts["skipped_by_reason"],
            labels=facts["labels"],
            device=self.plan.name,
            precision=self.task.plan.precision,
            trainable_parameters=trainable,
            total_parameters=total,
            resumed_from_step=self.loop.state.step,
        )

    def peak_memory_mb(self) -> float:
        """Return the highest memory use so far in MiB, of the GPU or else of this process."""
        return devices.peak_memory_mb(self.plan.device)

    def save_final_model(self, folder: Path) -> SavedModelCheck:
        """Write the final model and load it again as a check. The run cannot train any further afterwards."""

        def fill(draft: Path) -> None:
            save_adapter(self.task.model, draft)
            self.task.save_extras(draft)

        write_folder(folder, fill)
        # Free what only training needs: the check loads the model a second time.
        self.loop.optimizer.state.clear()
        self.loop.parameters.clear()
        return self.task.verify(folder)


class Run:
    """One run; the arguments are those of engine.train."""

    def __init__(
        self,
        config: RunConfig,
        data_file: Path | Rows | Callable[[], Rows],
        results: Path,
        base_models_dir: Path | None = None,
        dataset_hash: str | None = None,
        cache_dir: Path | None = None,
        should_save: Callable[[], bool] | None = None,
    ) -> None:
        self.config = config
        self.data_file = data_file
        self.base_models_dir = base_models_dir
        self.dataset_hash = dataset_hash
        self.cache_dir = cache_dir
        self.should_save = should_save
        self.world = World.from_environment()
        self.results = Results(results, writes=self.world.is_main_process)
        self.notices: list[dict[str, str]] = []  # all that this attempt has yielded, for metrics.json

    def events(self) -> Generator[Event]:
        """Run everything and yield the events, each of which is also written to logs.txt.

        Raises EngineError. Closing the generator cancels the run; the last checkpoint is kept.
        """
        with closing(self._stages()) as stages:
            try:
                with self.translated_errors():
                    for event in stages:
                        if isinstance(event, Notice):
                            self.notices.append(asdict(event))
                        line = describe(event, self.config.training.logging_steps)
                        if line is not None:
                            self.results.log(line)
                        yield event
            except EngineError as error:
                # If the disk is full, the reason for which the run stopped must still be raised.
                with suppress(EngineError):
                    self.results.log(f"Stopped: {error}")
                raise
            except GeneratorExit:
                with suppress(EngineError):
                    self.results.log("Cancelled; the last checkpoint is kept.")
                raise
            finally:
                self.world.leave()

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Turn errors of the disk and of memory allocators into DiskError and OutOfMemoryError."""
        try:
            with disk_errors(self.results.folder):
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _out_of_memory_error(self.config) from error

    def prepare(self) -> PreparedRun:
        """Do everything that comes before the first step: load data and model, and resume an earlier attempt.

        Raises EngineError for whatever stands in the way: device, base model, data, memory, an experiment of that name.
        """
        plan = devices.choose(self.config, self.world)
        self.world.join(plan.device)
        training = self.config.training
        random.seed(training.seed)
        np.random.seed(training.seed)
        torch.manual_seed(training.seed)
        torch.set_num_threads(plan.threads)
        if training.deterministic:
            # cuBLAS reads this at its first product; without it, products may differ from run to run.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(training.deterministic, warn_only=True)

        name = self.config.model.name
        base = base_models.resolve(name, self.base_models_dir, self.config.model.revision)
        check_type(read_config(base, name), name, head_of(self.config.task))
        # Refuse before anything is loaded, because native code aborts the process if not even the weights fit.
        weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        if free_bytes() < self.world.size * (weights + LEAST_BYTES):
            raise _out_of_memory_error(self.config)
        task = tasks.create(self.config, plan, base, self.data_file, self.cache_dir, training.seed)
        task.facts["dataset_hash"] = self.dataset_hash

        loop = self._create_loop(plan, task)
        notices = [*task.notices, *self._resume(loop)]
        start = f"{loop.state.fingerprint} {loop.state.data_hash} {loop.state.step}"
        self.world.refuse_differences(start, loop.parameters, plan.device)
        notices += data_notices(task.facts)
        return PreparedRun(plan, task, loop, notices)

    def _stages(self) -> Generator[Event]:
        """Go through the stages of the run; see engine.events for the order of what is yielded."""
        watch_other_programs()
        yield StageChanged("preparing")
        self.results.begin(self.config)
        model = self.config.model
        if base_models.needs_conversion(model.name, self.base_models_dir, model.revision):
            message = Sentence(
                gettext_noop("{model} is converted to safetensors first, which takes about 20 seconds, once."),
                model=model.name,
            )
            yield Notice("info", "converting_base_model", message)
        prepared = self.prepare()
        yield from prepared.notices
        yield prepared.event()

        yield StageChanged("training")
        task = prepared.task
        loop = prepared.loop
        with closing(loop.events()) as events:
            yield from events
        if loop.stopped_early:
            message = Sentence(
                gettext_noop("Stopped at step {step}: the evaluations no longer improve."), step=loop.state.step
            )
            yield Notice("info", "stopped_early", message)

        # The final model is the best checkpoint, which the last evaluation may not have seen.
        best = loop.checkpoints.named_steps(loop.state)["best"]
        if best != loop.state.step or not loop.metrics:
            yield StageChanged("evaluating")
            load_adapter(task.model, loop.checkpoints.path(best))
            loop.metrics = task.evaluate()

        metrics = self._metrics(prepared)  # by all processes: they share the evaluation of test rows
        if not self.world.is_main_process:
            return
        yield StageChanged("saving")
        check = prepared.save_final_model(self.results.final_model)
        yield from check.notices
        metrics["saved_model"] = check.facts
        loop.checkpoints.prune(loop.state, training_continues=False)
        yield from self._compare_with_baseline(task, metrics)
        metrics["result"] = judge(metrics, self.config)
        if not metrics["result"]["learned"]:
            yield Notice("warning", "not_learned", explain(metrics["result"]))
        self.results.finish(metrics, task.wrong_rows())
        yield Finished(metrics)
        yield StageChanged("done")

    def _create_loop(self, plan: devices.DevicePlan, task: tasks.Task) -> Loop:
        """Return a loop at its first step, with the fingerprint of all that its result depends on."""
        training = self.config.training
        schedule = BatchSchedule(
            lengths=task.lengths,
            batch=training.per_device_train_batch_size * training.gradient_accumulation_steps,
            epochs=training.num_train_epochs,
            max_steps=training.max_steps,
            seed=training.seed,
        )
        checkpoints = Checkpoints(
            self.results.checkpoints,
            metric=training.metric_for_best_model,
            writes=self.world.is_main_process,
        )
        loop = Loop(self.config, plan, task, schedule, checkpoints, self.should_save)
        settings = self.config.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
        defaults = RunConfig().model_dump(mode="json")
        for section, names in NEW_SETTINGS.items():
            for name in names:
                if settings[section][name] == defaults[section][name]:
                    del settings[section][name]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(task.lengths.tobytes())
        loop.state.fingerprint = digest.hexdigest()
        loop.state.data_hash = task.data_hash
        return loop

    def _resume(self, loop: Loop) -> list[Notice]:
        """Continue from the newest intact checkpoint, if there is one; return notices about damaged ones.

        Raises ConfigError if the checkpoint belongs to a run with other settings or data, or with another base model.
        """
        newest, damaged = loop.checkpoints.find_newest()
        notices = []
        if damaged:
            names = ", ".join(path.name for path in damaged)
            damage = gettext_noop("{names} is damaged; the run continues from the checkpoint before it.")
            notices.append(Notice("warning", "checkpoint_damaged", Sentence(damage, names=names)))
        if newest is None:
            return notices
        saved = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        if saved["fingerprint"] != loop.state.fingerprint:
            message = Sentence(
                gettext_noop(
                    "experiment_name: {experiment_name} holds a run with other settings or texts. Choose another name, or "
                    "delete that experiment first."
                ),
                experiment_name=self.config.experiment_name,
            )
            raise ConfigError([Problem("experiment_name", message, "other_settings")])
        if not loop.task.matches_data(saved.get("data_hash", "")):
            message = Sentence(
                gettext_noop(
                    "data.dataset_name: the rows or labels have changed since {experiment_name} was stopped. Its checkpoints "
                    "are kept. Restore the data to resume it, or choose another experiment_name."
                ),
                experiment_name=self.config.experiment_name,
            )
            raise ConfigError([Problem("data.dataset_name", message, "other_data")])
        base_model_hash = saved.get("base_model_hash", "")
        if base_model_hash and base_model_hash != loop.task.hash_base_model():
            message = Sentence(
                gettext_noop(
                    "model.name: the weights of {name} have changed since {experiment_name} was stopped. Its checkpoints are "
                    "kept. Restore the base model to resume it, or choose another experiment_name."
                ),
                name=self.config.model.name,
                experiment_name=self.config.experiment_name,
            )
            raise ConfigError([Problem("model.name", message, "other_base_model")])
        loop.resume(newest)
        return notices

    def _compare_with_baseline(self, task: tasks.Task, metrics: dict[str, Any]) -> Iterator[Notice]:
        """Add the scores of simple models to metrics["baseline"], if they are wanted, or yield why there are none.

        Comes after the final model is saved: whatever goes wrong here costs a number, not a run.
        """
        if not self.config.system.baseline:
            return
        try:
            metrics["baseline"] |= task.baseline()
        except Exception as error:  # MemoryError, and what scikit-learn raises for odd texts
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            message = Sentence(
                gettext_noop("The linear baseline could not be computed, so there is no number for it: {reason}"),
                reason=reason,
            )
            yield Notice("warning", "baseline_failed", message)

    def _metrics(self, prepared: PreparedRun) -> dict[str, Any]:
        """Return the content of metrics.json."""
        task = prepared.task
        loop = prepared.loop
        state = loop.state
        trainable, total = parameter_counts(task.model)
        scores = {score["step"]: score["metric"] for score in state.scores}
        checkpoints = {
            name: {
                "step": step,
                "metric": scores.get(step),
                "path": loop.checkpoints.path(step).relative_to(self.results.folder).as_posix(),
            }
            for name, step in loop.checkpoints.named_steps(state).items()
        }
        metrics = {
            "experiment": self.config.experiment_name,
            "task": self.config.task,
            "eval": loop.metrics,
            "train": {
                "loss": state.loss_sum / max(1, state.step),
                "runtime_s": state.runtime_s,
                "steps": state.step,
                "tokens": state.tokens,
                "tokens_per_second": state.tokens / max(1e-9, state.runtime_s),
                "stopped_early": loop.stopped_early,
            },
            "system": {
                "device": prepared.plan.name,
                "precision": task.plan.precision,
                "peak_memory_mb": prepared.peak_memory_mb(),
                "threads": prepared.plan.threads,
                "micro_batch": state.micro_batch,
                "trainable_parameters": trainable,
                "total_parameters": total,
                "torch": torch.__version__,
            },
            "data": {name: value for name, value in task.facts.items() if name != "labels"},
            "checkpoints": checkpoints,
            "notices": self.notices,  # the list itself, because more of them may come before metrics.json is written
            "history": state.history,
        }
        return metrics | task.summary()


def _out_of_memory_error(config: RunConfig) -> OutOfMemoryError:
    """Return the error for memory that ran out where no smaller micro-batch helps: while loading, evaluating or saving."""
    return OutOfMemoryError(
        Sentence(
            gettext_noop(
                "Memory ran out; {free:,.0f} MiB are free now. Saved checkpoints are kept. Close other programs, or "
                "choose a smaller base model than {name} or a smaller training.per_device_eval_batch_size."
            ),
            free=free_bytes() / 2**20,
            name=config.model.name,
        ),
        field="model.name",
    )
