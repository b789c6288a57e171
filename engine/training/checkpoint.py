"""Checkpoints: complete or absent, resumed bit by bit, and deleted when they are no longer useful."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import CheckpointDamagedError
from engine.sentences import Sentence, gettext_noop
from engine.storage import remove_folder, sweep_drafts, verify_folder, write_folder, write_json
from engine.task_types import LOWER_IS_BETTER, Metric

ONE_POINT = 0.01


@dataclass
class State:
    """The progress of a run, beside weights, optimizer and random generators. Written to state.json as it is."""

    fingerprint: str = ""  # of the settings and the rows' lengths; a checkpoint of another run is refused
    data_hash: str = ""  # of the rows; empty in checkpoints of releases that did not record it
    base_model_hash: str = ""  # of the base model's weights; empty as well, and before the first checkpoint
    step: int = 0
    micro_batch: int = 0
    loss_sum: float = 0.0
    unlogged: list[float] = field(default_factory=list)  # losses since the last point of the loss curve
    tokens: int = 0
    runtime_s: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)  # the curves of metrics.json
    scores: list[dict[str, Any]] = field(default_factory=list)  # step, metric and loss of each evaluation
    waited: int = 0  # evaluations without improvement, for early stopping


class Checkpoints:
    """The folder artifacts/checkpoints of one run."""

    def __init__(self, folder: Path, *, metric: Metric = "accuracy", writes: bool = True) -> None:
        self.folder = folder
        self.sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        self.in_unit_of_data = metric in ("mae", "rmse")
        if writes:
            folder.mkdir(exist_ok=True)
            sweep_drafts(folder)

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint, which need not exist."""
        return self.folder / f"checkpoint-{step}"

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, newest first."""
        names = (path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*"))
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def find_newest(self) -> tuple[Path | None, list[Path]]:
        """Return the newest intact checkpoint, or None, and the damaged ones that are newer."""
        damaged: list[Path] = []
        for step in self.steps():
            try:
                verify_folder(self.path(step))
                return self.path(step), damaged
            except CheckpointDamagedError:
                damaged.append(self.path(step))
        return None, damaged

    def save(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Write the checkpoint of state.step, then delete those that are no longer useful; return its folder.

        It is complete or absent, also after a crash. Raises DiskError.
        """

        def fill(draft: Path) -> None:
            save_adapter(model, draft)

            # safetensors holds flat names only: "3.exp_avg" is the slot exp_avg of parameter 3.
            slots = optimizer.state_dict()["state"].items()
            tensors = {
                f"{index}.{name}": value.detach().cpu() for index, values in slots for name, value in values.items()
            }
            save_file(tensors, draft / "optimizer.safetensors")

            # NumPy's Mersenne Twister keys are unsigned, which torch lacks, so their bits are stored as signed numbers.
            _, keys, position, has_gauss, gauss = np.random.get_state()
            generators = {
                "torch": torch.get_rng_state(),
                "numpy": torch.from_numpy(np.asarray(keys, dtype=np.uint32).view(np.int32).copy()),
                "numpy_rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
            }
            if torch.cuda.is_available():
                generators |= {f"cuda{index}": rng for index, rng in enumerate(torch.cuda.get_rng_state_all())}
            save_file(generators, draft / "rng.safetensors")

            write_json(draft / "state.json", asdict(state) | {"python_rng": random.getstate()})

        target = self.path(state.step)
        write_folder(target, fill)
        self.prune(state, training_continues=True)
        return target

    def load(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
        """Restore model, optimizer and random generators from a checkpoint; return its state."""
        load_adapter(model, folder)

        slots: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in load_file(folder / "optimizer.safetensors").items():
            index, name = key.split(".")
            slots.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})

        data = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        version, internal, gauss = data.pop("python_rng")
        random.setstate((version, tuple(internal), gauss))

        generators = load_file(folder / "rng.safetensors")
        torch.set_rng_state(generators["torch"])
        position, has_gauss, gauss = generators["numpy_rest"].tolist()
        keys = generators["numpy"].numpy().view(np.uint32)
        np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))
        cuda = [generators[name] for name in sorted(generators) if name.startswith("cuda")]
        # A run may resume on another number of GPUs, or on a CPU; then dropout is drawn anew.
        if cuda and torch.cuda.device_count() == len(cuda):
            torch.cuda.set_rng_state_all(cuda)
        return State(**data)

    def named_steps(self, state: State) -> dict[str, int]:
        """Return the steps of the last, the best and the fastest checkpoint.

        Best has the highest metric, of equals the one with the lowest loss; fastest is the earliest whose metric is
        within one point of the best, or one percent for errors in the unit of the data.
        """
        existing = set(self.steps())
        scores = [score for score in state.scores if score["step"] in existing]
        named = {"last": max(existing)} if existing else {}
        if scores:
            best = max(scores, key=lambda score: (self.sign * score["metric"], -score["loss"], -score["step"]))
            point = self._point(best["metric"])
            close = [score for score in scores if self.sign * (best["metric"] - score["metric"]) <= point]
            named |= {"best": best["step"], "fastest": min(score["step"] for score in close)}
        return named

    def _point(self, best: float) -> float:
        return ONE_POINT * abs(best) if self.in_unit_of_data else ONE_POINT

    def prune(self, state: State, *, training_continues: bool) -> None:
        """Delete checkpoints that are not the best, last or fastest and, if training continues, cannot become it."""
        useful = set(self.named_steps(state).values())
        if training_continues:
            # If the best metric rises later, the fastest checkpoint moves on: to one that set a new best when it was
            # evaluated. Those within a point of today's best are still candidates.
            best = max((self.sign * score["metric"] for score in state.scores), default=0.0)
            highest = float("-inf")
            for score in state.scores:
                metric = self.sign * score["metric"]
                if metric > highest:
                    highest = metric
                    if best - metric <= self._point(best):
                        useful.add(score["step"])
        for step in self.steps():
            if step not in useful:
                remove_folder(self.path(step))
        sweep_drafts(self.folder)


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Write PEFT's own two files, adapter_model.safetensors and adapter_config.json, which plain PEFT can load."""
    peft_model = cast(PeftModel, model)
    # With lora.bias "all", PEFT lists a head's bias twice: under its own name and under modules_to_save.
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(peft_model, save_embedding_layers=False).items()
        if ".modules_to_save." not in name
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = peft_model.peft_config["default"]
    inference_mode = config.inference_mode
    config.inference_mode = True  # as PEFT saves it
    config.save_pretrained(str(folder))
    config.inference_mode = inference_mode


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Load a saved adapter's weights into a model that has such an adapter.

    Raises CheckpointDamagedError if the file has weights that the model lacks.
    """
    tensors = load_file(folder / "adapter_model.safetensors")
    result: Any = set_peft_model_state_dict(cast(PeftModel, model), tensors)
    if result.unexpected_keys:
        raise CheckpointDamagedError(
            Sentence(gettext_noop("{name} belongs to another model."), name=folder.name),
            keys=result.unexpected_keys[:5],
        )
