"""A run from its first to its last event: prepare, train, evaluate, save, done."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine import devices, tasks
from engine.config import Problem, RunConfig
from engine.data.batches import Schedule
from engine.errors import ConfigError, EngineError, OutOfMemory
from engine.events import Event, Finished, Notice, Prepared, StageChanged
from engine.memory_limits import free_bytes
from engine.models import base_models
from engine.models.loading import parameter_counts
from engine.out_of_memory import is_out_of_memory
from engine.storage import disk_errors, write_folder
from engine.training.checkpoint import Checkpoints, State, load_adapter, save_adapter
from engine.training.distributed import World
from engine.training.loop import Loop
from engine.training.results import Results, describe

WHERE_NOT_WHAT: dict[str, Any] = {"system": True, "experiment_name": True, "training": {"device", "precision"}}
ROOM_BYTES = 128 * 2**20  # beside its weights, the least that any run takes


class Run:
    """See engine.train, whose arguments these are."""

    def __init__(
        self,
        config: RunConfig,
        data_file: Path,
        results: Path,
        base_models_dir: Path | None = None,
        dataset_hash: str | None = None,
        cache_dir: Path | None = None,
        should_save: Callable[[], bool] | None = None,
    ) -> None:
        self.config, self.data_file, self.base_models_dir = config, data_file, base_models_dir
        self.dataset_hash, self.cache_dir, self.should_save = dataset_hash, cache_dir, should_save
        self.world = World.of_environment()
        self.results = Results(results, writes=self.world.leads)

    def events(self) -> Generator[Event]:
        """All events of the run, each also written to logs.txt."""
        with closing(self._stages()) as stages:
            try:
                with self.explained():
                    yield from self._logged(stages)
            except EngineError as error:
                self._log_quietly(f"Stopped: {error}")
                raise
            except GeneratorExit:
                self._log_quietly("Cancelled; the last checkpoint is kept.")
                raise
            finally:
                self.world.leave()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Disks and memory that give out say so in words."""
        try:
            with disk_errors(self.results.folder):
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _does_not_fit(self.config) from error

    def _logged(self, stages: Iterator[Event]) -> Generator[Event]:
        for event in stages:
            if line := describe(event, self.config.training.logging_steps):
                self.results.log(line)
            yield event

    def _stages(self) -> Generator[Event]:
        yield StageChanged("preparing")
        self.results.write_config(self.config)
        self.results.forget_metrics()
        yield from self.prepare()
        yield StageChanged("training")
        with closing(self.loop.events()) as events:
            yield from events
        if self.loop.stopped_early:
            yield Notice("info", "stopped_early", f"Stopped at step {self.loop.state.step}: no improvement any more.")
        yield from self._finish()

    def prepare(self) -> Generator[Event]:
        """Everything before the first step: data, model, and the place where an earlier attempt stopped."""
        self.plan = devices.choose(self.config, self.world)
        self.world.join(self.plan.device)
        self._seed()
        base = base_models.resolve(self.config.model.name, self.base_models_dir, self.config.model.revision)
        self._refuse_without_room(base)
        self.task = tasks.create(
            self.config, self.plan, base, self.data_file, self.cache_dir, self.config.training.seed
        )
        self.task.facts["dataset_hash"] = self.dataset_hash
        self.model = self.task.build()
        self.loop = self._loop(self.model)
        yield from self._resume()
        start = f"{self._fingerprint()} {self.loop.state.step}"
        self.world.refuse_differences(start, self.loop.parameters, self.plan.device)
        yield from self._remarks()
        yield self._prepared()

    def _refuse_without_room(self, base: Path) -> None:
        """Before anything is loaded: native code aborts where not even the weights fit."""
        weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        if free_bytes() < self.world.size * (weights + ROOM_BYTES):
            raise _does_not_fit(self.config)

    def _seed(self) -> None:
        seed = self.config.training.seed
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(self.plan.threads)
        torch.use_deterministic_algorithms(self.config.training.deterministic, warn_only=True)

    def _loop(self, model: nn.Module) -> Loop:
        training = self.config.training
        schedule = Schedule(
            lengths=self.task.lengths,
            batch=training.per_device_train_batch_size * training.gradient_accumulation_steps,
            epochs=training.num_train_epochs,
            max_steps=training.max_steps,
            seed=training.seed,
        )
        lower = training.metric_for_best_model == "loss"
        checkpoints = Checkpoints(self.results.checkpoints, lower_is_better=lower, writes=self.world.leads)
        return Loop(self.config, self.plan, self.task, model, schedule, checkpoints, self.should_save)

    def _resume(self) -> Generator[Event]:
        checkpoints = self.loop.checkpoints
        self.loop.state.fingerprint = self._fingerprint()
        newest, damaged = checkpoints.newest()
        if damaged:
            names = ", ".join(path.name for path in damaged)
            yield Notice(
                "warning", "checkpoint_damaged", f"{names} is damaged; the run goes on from the one before it."
            )
        if newest is None:
            return
        self._refuse_other_settings(newest)
        self.loop.state = checkpoints.load(newest, self.model, self.loop.optimizer)
        self.loop.state.fingerprint = self._fingerprint()

    def _refuse_other_settings(self, checkpoint: Path) -> None:
        saved = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["fingerprint"]
        if saved != self._fingerprint():
            message = (
                f"experiment_name: {self.results.folder.name} holds a run with other settings. "
                "Choose another name, or delete that experiment first."
            )
            raise ConfigError([Problem("experiment_name", message, "other_settings")])

    def _fingerprint(self) -> str:
        settings = self.config.model_dump(mode="json", exclude=WHERE_NOT_WHAT)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(self.task.lengths.tobytes())
        return digest.hexdigest()

    def _remarks(self) -> Iterator[Notice]:
        facts = self.task.facts
        if facts.get("rare_labels"):
            names = ", ".join(facts["rare_labels"])
            yield Notice("warning", "rare_label", f"These labels have fewer than two training rows: {names}.")
        if facts.get("truncated_rows"):
            message = f"{facts['truncated_rows']} texts were cut to {facts['max_length']} tokens."
            yield Notice("info", "truncated", message)

    def _prepared(self) -> Prepared:
        facts = self.task.facts
        trained, total = parameter_counts(self.model)
        return Prepared(
            total_steps=self.loop.total_steps,
            train_rows=facts["train_rows"],
            eval_rows=facts["eval_rows"],
            truncated_rows=facts["truncated_rows"],
            skipped_rows=facts["skipped_rows"],
            labels=facts["labels"],
            device=self.plan.name,
            precision=self.task.plan.precision,
            trainable_parameters=trained,
            total_parameters=total,
            resumed_from_step=self.loop.state.step,
        )

    def _finish(self) -> Generator[Event]:
        loop, checkpoints = self.loop, self.loop.checkpoints
        best = checkpoints.kept(loop.state)["best"]
        if best != loop.state.step or not loop.metrics:
            yield StageChanged("evaluating")
            load_adapter(self.model, checkpoints.path(best))
            loop.metrics = self.task.evaluate()
        yield StageChanged("saving")
        metrics = self._metrics()
        if not self.world.leads:
            return
        self.save_final_model()
        checkpoints.prune(loop.state, keep_candidates=False)
        self.results.write_metrics(metrics)
        yield Finished(metrics)
        yield StageChanged("done")

    def save_final_model(self) -> None:
        """Write it, and load it again as a stranger would. Training can't go on after that."""
        write_folder(self.results.final_model, self._fill_final_model)
        self._release_optimizer()
        self.task.verify(self.results.final_model)

    def peak_memory_mb(self) -> float:
        """Highest memory of this process so far, in MiB."""
        return devices.peak_memory_mb(self.plan.device)

    def _fill_final_model(self, draft: Path) -> None:
        save_adapter(self.model, draft)
        self.task.save_extras(draft)

    def _release_optimizer(self) -> None:
        self.loop.optimizer.state.clear()
        self.loop.parameters.clear()

    def _metrics(self) -> dict[str, Any]:
        state: State = self.loop.state
        trained, total = parameter_counts(self.model)
        return {
            "experiment": self.config.experiment_name,
            "eval": self.loop.metrics,
            "train": {
                "loss": state.loss_sum / max(1, state.step),
                "runtime_s": state.runtime_s,
                "steps": state.step,
                "tokens": state.tokens,
                "tokens_per_second": state.tokens / max(1e-9, state.runtime_s),
                "stopped_early": self.loop.stopped_early,
            },
            "system": {
                "device": self.plan.name,
                "precision": self.task.plan.precision,
                "peak_memory_mb": self.peak_memory_mb(),
                "threads": self.plan.threads,
                "micro_batch": state.micro_batch,
                "trainable_parameters": trained,
                "total_parameters": total,
                "torch": torch.__version__,
            },
            "data": {name: value for name, value in self.task.facts.items() if name != "labels"},
            "checkpoints": self._kept(),
            "history": state.history,
        } | self.task.summary()

    def _kept(self) -> dict[str, dict[str, Any]]:
        loop = self.loop
        scores = {score["step"]: score["metric"] for score in loop.state.scores}
        return {
            name: {
                "step": step,
                "metric": scores.get(step),
                "path": loop.checkpoints.path(step).relative_to(self.results.folder).as_posix(),
            }
            for name, step in loop.checkpoints.kept(loop.state).items()
        }

    def _log_quietly(self, line: str) -> None:
        """Where the run has failed already, a full disk must not hide why."""
        with suppress(EngineError):
            self.results.log(line)


def _does_not_fit(config: RunConfig) -> OutOfMemory:
    """Memory ran out where no smaller micro-batch helps: while the model was built, evaluated or saved."""
    return OutOfMemory(
        f"Memory ran out; {free_bytes() / 2**20:,.0f} MiB are free now. Checkpoints that were written are kept. "
        f"End other programs, or choose a smaller base model than {config.model.name} or a smaller "
        "training.per_device_eval_batch_size.",
        field="model.name",
    )
