"""Read a GGUF file of ours again, by transformers or, for types that it reads from no such file, by the gguf package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import torch
from gguf.quants import dequantize

from engine.export.gguf_files import ARCHITECTURES, GGUF_FILE, restore
from engine.models.loading import load_gguf

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

READ_HERE = ("gemma", "smollm3")  # types that transformers reads from no GGUF file


def load_written_gguf(folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """Return the model in an exported folder, in fp32. config: of the model, of which GGUF has a part."""
    if config.model_type not in READ_HERE:
        return load_gguf(folder, GGUF_FILE, config)
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / GGUF_FILE).tensors}
    state = {}
    for hf_name in model.state_dict():
        tensor = stored.get(str(names.get_name(hf_name, try_suffixes=(".weight", ".bias"))))
        if tensor is not None:  # a head that is tied to the embeddings is not in the file
            weights = restore(dequantize(tensor.data, tensor.tensor_type), hf_name, config)
            state[hf_name] = torch.from_numpy(weights.copy())
    left_out, _unexpected = model.load_state_dict(state, strict=False)
    if set(left_out) - {"lm_head.weight" if config.tie_word_embeddings else ""}:
        raise ValueError(f"The file lacks {', '.join(left_out)}.")
    return model
