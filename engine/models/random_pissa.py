"""Save adapters that start from a randomised SVD (pissa_niter_16) as plain LoRA, which loads equally each time.

PiSSA subtracts its initial update from the frozen weight, and whoever loads the adapter has to repeat that. With a
randomised SVD nobody can: each load draws other numbers. The same weights without the subtraction (arXiv 2404.02948):

W + s (B A - B0 A0) = W + s [B, -B0] [A; A0]
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from engine.storage import write_json


def initial_pairs(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a new adapter's matrices by their names in its file if they come from a randomised SVD; else nothing."""
    peft_model = cast(PeftModel, model)
    if "_niter_" not in str(getattr(peft_model.peft_config["default"], "init_lora_weights", "")):
        return {}
    state = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if ".lora_" in name}


def convert_to_plain_lora(folder: Path, initial: dict[str, torch.Tensor]) -> None:
    """Rewrite a saved adapter so that it adds to unchanged base weights; its rank doubles. Raises DiskError."""
    path = folder / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not mapped to the file any more
    for name, start in initial.items():
        axis, sign = (0, 1) if ".lora_A" in name else (1, -1)
        tensors[name] = torch.cat([tensors[name], sign * start], dim=axis).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    # The scale has to stay what it was: alpha / r, or alpha / √r.
    settings["lora_alpha"] *= math.sqrt(2) if settings["use_rslora"] else 2
    settings |= {"r": 2 * settings["r"], "init_lora_weights": True}
    write_json(folder / "adapter_config.json", settings)
