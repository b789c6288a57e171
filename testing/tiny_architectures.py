"""Build a tiny, randomly initialised base model of any type that transformers can classify texts with, and its tokenizer.

Nothing here knows how a model computes: sizes are lowered by their usual names, and OF_TYPE has what a type needs beside that.
"""

import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from samples import tweets_en

from .small_models import BERT_SPECIAL, ROBERTA_SPECIAL, train_bpe, train_wordpiece

WIDTH = 64
HEADS = 4
LONGEST = 96  # tokens
# By their names in the configurations of transformers.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_head", "d_kv", "kv_channels", "v_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("intermediate_size", "d_ff", "hidden_dim", "d_inner", "dff", "n_inner"), 2 * WIDTH),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), 2 * WIDTH),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), LONGEST),
    # Mixtures of experts, and attention through matrices of low rank.
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "kv_lora_rank", "q_lora_rank"), 32),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    # Larger than in real models, so that what a text says is still there after two random layers.
    **dict.fromkeys(("initializer_range", "init_std"), 0.1),
}
SPECIAL_NUMBERS = {
    "pad_token_id": "pad",
    "pad_index": "pad",
    "bos_token_id": "cls",
    "cls_token_id": "cls",
    "bos_index": "cls",
    "eos_token_id": "sep",
    "sep_token_id": "sep",
    "eos_index": "sep",
    "decoder_start_token_id": "sep",
    "unk_token_id": "unk",
    "unk_index": "unk",
    "mask_token_id": "mask",
    "mask_index": "mask",
}
MAMBA: dict[str, Any] = {"mamba_d_state": 8, "mamba_dt_rank": 8}
LINEAR_ATTENTION: dict[str, Any] = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
MANY_KEYS: dict[str, Any] = {"num_key_value_heads": HEADS}
# By model type, and by the type of a part of a model.
OF_TYPE: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 32},
    "axk1": MANY_KEYS,
    "axk2": MANY_KEYS | {"index_topk": 16, "index_head_dim": 16, "index_n_heads": 2},
    "big_bird": {"attention_type": "original_full", "block_size": 16, "num_random_blocks": 2},
    "bigbird_pegasus": {"block_size": 16, "num_random_blocks": 2},
    "canine": {"max_position_embeddings": 512, "local_transformer_stride": 32},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}},
    },
    "convbert": {"embedding_size": WIDTH},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": WIDTH},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": WIDTH},
    "deepseek_v2": MANY_KEYS,
    "deepseek_v3": MANY_KEYS,
    "electra": {"embedding_size": 32},
    "esmc": MANY_KEYS,
    "funnel": {"block_sizes": [1, 1, 1], "num_decoder_layers": 1, "architectures": ["FunnelModel"]},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 16},
    "gptj": {"rotary_dim": 8},
    "jamba": MAMBA | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "layoutlmv3": {"coordinate_size": 10, "shape_size": 12},
    "lilt": {"hidden_size": 96},
    "longformer": {"attention_window": 16},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    # The place of a word in a page, always the same here, would outweigh the word.
    "markuplm": {"max_depth": 2, "xpath_unit_hidden_size": 4},
    "minicpm3": MANY_KEYS,
    "minimax": {"block_size": 16, "layer_types": ["linear_attention", "full_attention"]},
    "mistral4": MANY_KEYS,
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32, "num_feedforward_networks": 2},
    "mt5": {"decoder_start_token_id": 1},
    "qwen3_5_text": LINEAR_ATTENTION,
    "qwen3_5_vision": {"out_hidden_size": WIDTH, "depth": 2},
    "qwen3_next": LINEAR_ATTENTION,
    "reformer": {
        "axial_pos_embds_dim": [16, 48],
        "axial_pos_shape": [8, 12],
        "attn_layers": ["local", "lsh"],
        "feed_forward_size": 128,
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
        "attention_head_size": 16,
        "num_buckets": 4,
    },
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "roformer": {"embedding_size": WIDTH},
    "squeezebert": {"embedding_size": WIDTH},
    "t5": {"decoder_start_token_id": 1},
    "xmod": {"default_language": "en_XX"},
    "zamba": MAMBA
    | {"attention_head_dim": 32, "num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": MAMBA | {"n_mamba_heads": 8, "chunk_size": 16, "layers_block_type": ["linear_attention", "hybrid"]},
}
# Tokenizers of characters and bytes, which have no vocabulary to train.
OWN_TOKENIZERS = {"canine": "CanineTokenizer", "perceiver": "PerceiverTokenizer"}


def build_tiny(folder: Path, model_type: str, **changes: Any) -> None:
    """Write config.json, model.safetensors and the tokenizer of a tiny model. changes: of its configuration.

    Raises whatever transformers raises for a configuration that it can't build.
    """
    import torch
    from transformers import AutoModel

    config = tiny_config(model_type, **changes)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, model_type)


def tiny_config(model_type: str, **changes: Any) -> Any:
    """Return the configuration of a tiny model. changes: of its values, by their names."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type]
    return config_class(**tiny_values(config_class, model_type) | changes)


def tiny_values(config_class: Any, model_type: str) -> dict[str, Any]:
    """Return the values of a configuration, and of those of its parts; model_type: whose tokenizer the whole model has."""
    names = {field.name for field in fields(config_class)}
    tokenizer, special = tokenizer_of(model_type)
    values = {name: value for name, value in SIZES.items() if name in names}
    values |= {name: tokenizer.token_to_id(special[role]) for name, role in SPECIAL_NUMBERS.items() if name in names}
    if "vocab_size" in names and model_type not in OWN_TOKENIZERS:
        values["vocab_size"] = tokenizer.get_vocab_size()
    for name, part_class in parts_of(config_class).items():
        values[name] = tiny_values(part_class, model_type)
    return values | OF_TYPE.get(config_class.model_type, {})


def parts_of(config_class: Any) -> dict[str, Any]:
    """Return the classes of the configurations inside of a configuration, such as text_config, by their names."""
    from transformers import CONFIG_MAPPING

    parts = getattr(config_class, "sub_configs_defaults", None) or {}
    return {name: part if isinstance(part, type) else CONFIG_MAPPING[part.model_type] for name, part in parts.items()}


def tokenizer_of(model_type: str) -> tuple[Any, dict[str, str]]:
    """Return a tokenizer and its special tokens: of word pieces if the model tells two texts apart by type, else of bytes."""
    from transformers import CONFIG_MAPPING

    defaults: dict[str, Any] = {field.name: field.default for field in fields(CONFIG_MAPPING[model_type])}
    types = defaults.get("type_vocab_size")
    has_types = isinstance(types, int) and types > 1
    return (word_pieces(), BERT_SPECIAL) if has_types else (byte_pairs(), ROBERTA_SPECIAL)


@cache
def word_pieces() -> Any:
    return train_wordpiece(tweets_en()["text"].gather_every(16).to_list())


@cache
def byte_pairs() -> Any:
    return train_bpe(tweets_en()["text"].gather_every(16).to_list())


def save_tokenizer(folder: Path, model_type: str) -> None:
    """Write the tokenizer's files, without a longest text: that is the model's to say."""
    import transformers

    if model_type in OWN_TOKENIZERS:
        getattr(transformers, OWN_TOKENIZERS[model_type])().save_pretrained(folder)
        return
    tokenizer, special = tokenizer_of(model_type)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {f"{role}_token": token for role, token in special.items()} | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }
    if special is ROBERTA_SPECIAL:
        settings |= {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
