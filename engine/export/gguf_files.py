"""Write a merged language model as GGUF, for llama.cpp and Ollama, where its weights and settings have an exact place in the format."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf.quants import quantize

from engine.errors import ExportRefusedError
from engine.export.gguf_tokenizer import GgufTokenizer
from engine.sentences import Sentence, gettext_noop

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from engine.export import Format

GGUF_FILE = "model.gguf"
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
}
# The activation that llama.cpp computes for a type, as config.json names it.
ACTIVATIONS = {"gpt2": "gelu_new", "gemma": "gelu_pytorch_tanh"}
USUAL_ACTIVATION = "silu"
WITHOUT_POSITIONS = 4  # every fourth layer of SmolLM3 has none: llama.cpp knows no other number
INTERLEAVED = ("llama", "mistral", "smollm3")  # whose rotary positions GGUF has in another order of a head's numbers
FILE_TYPES = {"gguf-f16": gguf.LlamaFileType.MOSTLY_F16, "gguf-q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
BLOCK = 32  # numbers that share a scale in Q8_0


def require_exact(config: Any) -> None:
    """Raise ExportRefusedError unless all that config.json says about a model has a place in GGUF."""
    model_type = config.model_type
    if model_type not in ARCHITECTURES:
        raise ExportRefusedError(
            Sentence(
                gettext_noop(
                    "Models of the type {model_type} can't be exported to GGUF: the types that can are {types}. Export to "
                    "safetensors or peft."
                ),
                model_type=model_type,
                types=", ".join(sorted(ARCHITECTURES)),
            )
        )
    rope = getattr(config, "rope_parameters", None) or {}
    activation = getattr(config, "activation_function", None) or config.hidden_act
    faults = {
        gettext_noop("its positions are scaled ({rope_type})"): rope.get("rope_type", "default") != "default",
        gettext_noop("only a part of each head has positions"): rope.get("partial_rotary_factor", 1) != 1,
        gettext_noop("its feed-forward layers have biases"): bool(getattr(config, "mlp_bias", False)),
        gettext_noop("its activation is another"): activation != ACTIVATIONS.get(model_type, USUAL_ACTIVATION),
        gettext_noop("its attention has biases"): model_type == "gemma" and config.attention_bias,
        gettext_noop("other layers are without positions than every fourth one"): model_type == "smollm3"
        and config.no_rope_layers
        != [int((layer + 1) % WITHOUT_POSITIONS != 0) for layer in range(config.num_hidden_layers)],
    }
    for fault, is_there in faults.items():
        if is_there:
            raise ExportRefusedError(
                Sentence(
                    gettext_noop("The base model can't be exported to GGUF: {fault}. Export to safetensors or peft."),
                    fault=Sentence(fault, rope_type=rope.get("rope_type")),
                )
            )


def write_gguf(model: PreTrainedModel, path: Path, name: str, tokenizer: GgufTokenizer, format: Format) -> None:
    """Write the model and its tokenizer to a file. name: of the model, for its metadata."""
    config: Any = model.config
    architecture = ARCHITECTURES[config.model_type]
    logging.getLogger("gguf").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[format])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        write_settings(writer, config)
        tokenizer.write(writer)
        names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
        state = model.state_dict()
        is_tied = bool(config.tie_word_embeddings)
        for hf_name, tensor in state.items():
            if is_tied and hf_name == "lm_head.weight":
                continue
            gguf_name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
            if gguf_name is None:
                raise ExportRefusedError(
                    Sentence(
                        gettext_noop(
                            "The base model has a weight that has no place in GGUF ({weight}). Export to safetensors or peft."
                        ),
                        weight=hf_name,
                    )
                )
            add_tensor(writer, gguf_name, arrange(tensor.float().cpu().numpy(), hf_name, config), format)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def write_settings(writer: gguf.GGUFWriter, config: Any) -> None:
    """Add what config.json says about the model."""
    longest = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    writer.add_context_length(min(longest, window or longest))  # within the window, attention is the same
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.model_type == "phi3":
        writer.add_sliding_window(window or 0)  # llama.cpp assumes one where the file says nothing


def arrange(weights: np.ndarray, hf_name: str, config: Any) -> np.ndarray:
    """Return the numbers of a tensor in GGUF's order."""
    if config.model_type == "gpt2" and weights.ndim == 2 and (".attn." in hf_name or ".mlp." in hf_name):
        return weights.T  # of Conv1D, which multiplies from the other side
    if config.model_type in INTERLEAVED and (".q_proj." in hf_name or ".k_proj." in hf_name):
        heads = config.num_attention_heads if ".q_proj." in hf_name else config.num_key_value_heads
        halves = weights.reshape(heads, 2, len(weights) // heads // 2, *weights.shape[1:])
        return halves.swapaxes(1, 2).reshape(weights.shape)
    if config.model_type == "gemma" and hf_name.endswith("norm.weight"):
        return weights + 1  # the model adds it, llama.cpp does not
    return weights


def restore(weights: np.ndarray, hf_name: str, config: Any) -> np.ndarray:
    """Return the numbers of a tensor in the order of transformers: the opposite of `arrange`, for the types that gguf_reading reads."""
    if config.model_type in INTERLEAVED and (".q_proj." in hf_name or ".k_proj." in hf_name):
        heads = config.num_attention_heads if ".q_proj." in hf_name else config.num_key_value_heads
        pairs = weights.reshape(heads, len(weights) // heads // 2, 2, *weights.shape[1:])
        return pairs.swapaxes(1, 2).reshape(weights.shape)
    if config.model_type == "gemma" and hf_name.endswith("norm.weight"):
        return weights - 1
    return weights


def add_tensor(writer: gguf.GGUFWriter, name: str, weights: np.ndarray, format: Format) -> None:
    """Add a tensor: vectors in fp32, matrices in the format, or in F16 where their rows do not fit its blocks."""
    if weights.ndim == 1 or name == "position_embd.weight":
        writer.add_tensor(name, np.ascontiguousarray(weights, dtype=np.float32))
    elif format == "gguf-q8_0" and weights.shape[-1] % BLOCK == 0:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, quantize(np.ascontiguousarray(weights), kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, np.ascontiguousarray(weights, dtype=np.float16))
