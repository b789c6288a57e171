"""Checkpoints: written whole or not at all, resumed to the last bit, and only the useful ones kept."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import CheckpointDamaged
from engine.storage import remove_folder, sweep_drafts, verify_folder, write_folder, write_json

ONE_POINT = 0.01


@dataclass
class State:
    """Everything of a run that is neither weight nor optimiser: where it is and what it has seen."""

    fingerprint: str = ""
    step: int = 0
    micro_batch: int = 0
    loss_sum: float = 0.0
    unlogged: list[float] = field(default_factory=list)
    tokens: int = 0
    runtime_s: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    waited: int = 0


class Checkpoints:
    """The folder artifacts/checkpoints of one run."""

    def __init__(self, folder: Path, *, lower_is_better: bool = False, writes: bool = True) -> None:
        self.folder, self.sign = folder, -1.0 if lower_is_better else 1.0
        if writes:
            folder.mkdir(exist_ok=True)
            sweep_drafts(folder)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is or would be."""
        return self.folder / f"checkpoint-{step}"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, newest first."""
        names = (path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*"))
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def newest(self) -> tuple[Path | None, list[Path]]:
        """The newest checkpoint whose manifest holds, and the damaged ones that are newer."""
        damaged: list[Path] = []
        for step in self.steps():
            try:
                verify_folder(self.path(step))
                return self.path(step), damaged
            except CheckpointDamaged:
                damaged.append(self.path(step))
        return None, damaged

    def save(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Write the checkpoint of state.step, then delete those that are not worth keeping."""
        target = self.path(state.step)

        def fill(draft: Path) -> None:
            save_adapter(model, draft)
            save_file(_optimizer_tensors(optimizer), draft / "optimizer.safetensors")
            save_file(_rng_tensors(), draft / "rng.safetensors")
            write_json(draft / "state.json", asdict(state) | {"python_rng": random.getstate()})

        write_folder(target, fill)
        self.prune(state, keep_candidates=True)
        return target

    def load(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
        """Put model, optimiser and random states back; returns the state."""
        data = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        load_adapter(model, folder)
        _load_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
        version, internal, gauss = data.pop("python_rng")
        random.setstate((version, tuple(internal), gauss))
        _load_rng(load_file(folder / "rng.safetensors"))
        return State(**data)

    def kept(self, state: State) -> dict[str, int]:
        """Steps of best (of equals the one with the lowest loss), last and fastest (the earliest within one point)."""
        there = set(self.steps())
        scores = [score for score in state.scores if score["step"] in there]
        kept = {"last": max(there)} if there else {}
        if scores:
            best = max(scores, key=lambda score: (self.sign * score["metric"], -score["loss"], -score["step"]))
            near = [score for score in scores if self.sign * (best["metric"] - score["metric"]) <= ONE_POINT]
            kept |= {"best": best["step"], "fastest": min(score["step"] for score in near)}
        return kept

    def prune(self, state: State, *, keep_candidates: bool) -> None:
        """Delete what is neither best, last nor fastest, nor can still become the fastest while the run goes on."""
        worth = set(self.kept(state).values())
        if keep_candidates:
            worth |= self._candidates(state)
        for step in self.steps():
            if step not in worth:
                remove_folder(self.path(step))
        sweep_drafts(self.folder)

    def _candidates(self, state: State) -> set[int]:
        best = max((self.sign * score["metric"] for score in state.scores), default=0.0)
        rising: set[int] = set()
        highest = float("-inf")
        for score in state.scores:
            value = self.sign * score["metric"]
            if value > highest:
                highest = value
                rising |= {score["step"]} if best - value <= ONE_POINT else set()
        return rising


def save_adapter(model: Any, folder: Path) -> None:
    """PEFT's own two files: adapter_model.safetensors and adapter_config.json."""
    from peft import get_peft_model_state_dict

    # With bias: all PEFT lists a head's bias under its own name and once more under modules_to_save.
    state = {
        name: tensor
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
        if ".modules_to_save." not in name
    }
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = model.peft_config["default"]
    inference_mode, config.inference_mode = config.inference_mode, True
    config.save_pretrained(folder)
    config.inference_mode = inference_mode


def load_adapter(model: Any, folder: Path) -> None:
    """Put a saved adapter's weights into the model; CheckpointDamaged when they don't fit it."""
    from peft import set_peft_model_state_dict

    result: Any = set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    if result.unexpected_keys:
        raise CheckpointDamaged(f"{folder.name} belongs to another model.", keys=result.unexpected_keys[:5])


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value.detach().cpu() for index, slots in state.items() for name, value in slots.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _rng_tensors() -> dict[str, torch.Tensor]:
    _, keys, position, has_gauss, gauss = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.uint32).view(np.int32).copy()),
        "numpy_rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states |= {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _load_rng(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    position, has_gauss, gauss = states["numpy_rest"].tolist()
    np.random.set_state(("MT19937", states["numpy"].numpy().view(np.uint32), int(position), int(has_gauss), gauss))
    cuda = [states[name] for name in sorted(states) if name.startswith("cuda")]
    if cuda and torch.cuda.device_count() == len(cuda):
        torch.cuda.set_rng_state_all(cuda)
