"""Base model plus PEFT adapter: loaded, frozen, given its adapter after the seed is set."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.config import LoraSection, Problem
from engine.devices import Plan
from engine.errors import BaseModelUnavailable, ConfigError

ATTENTION = ("attention", "attn", "Wqkv")
QUERY_VALUE = (("query", "value"), ("q_lin", "v_lin"), ("q_proj", "v_proj"), ("query_proj", "value_proj"), ("Wqkv",))


def load_tokenizer(folder: Path, name: str) -> Any:
    """The base model's fast tokenizer."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelUnavailable(f"The tokenizer of {name} can't be loaded: {error}", field="model.name") from error


def load_classifier(folder: Path, name: str, labels: list[str], plan: Plan) -> tuple[nn.Module, list[str]]:
    """The base model with a new head for `labels`, and the names of its freshly started modules."""
    from transformers import AutoModelForSequenceClassification

    quiet()
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            attn_implementation=plan.attention,
            dtype=plan.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **in_few_bits(folder, plan),
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if "memory" in str(error):
            raise
        raise BaseModelUnavailable(f"The base model {name} can't be loaded: {error}", field="model.name") from error
    return model, _new_modules(model, loading)


def in_few_bits(folder: Path, plan: Plan) -> dict[str, Any]:
    """What loads the frozen weights in 8 or 4 bits (arXiv 2208.07339, 2305.14314); products are in the plan's precision."""
    if plan.few_bits is None:
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_8bit=plan.few_bits == "load_in_8bit",
        load_in_4bit=plan.few_bits == "load_in_4bit",
        llm_int8_skip_modules=_heads(folder),
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=plan.dtype,
    )
    return {"quantization_config": config, "device_map": {"": str(plan.device)}}


def _heads(folder: Path) -> list[str]:
    """All that is not the encoder: new heads learn, so they keep all of their bits."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    body = model.base_model_prefix
    return [*(name for name, _ in model.named_children() if name != body), f"{body}.pooler"]


def add_adapter(model: nn.Module, config: LoraSection, new_modules: list[str], base_model: str, seed: int) -> nn.Module:
    """Wrap in PEFT's LoRA. Seeded right before, so that the same seed starts from the same adapter."""
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(seed)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # a float is as good
        lora_dropout=config.lora_dropout,
        target_modules=target_modules(model, config),
        exclude_modules=new_modules if config.target_modules == "all-linear" else None,
        layers_to_transform=config.layers_to_transform,
        modules_to_save=sorted({*new_modules, *(config.modules_to_save or [])}),
        bias=config.bias,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        init_lora_weights=True if config.init_lora_weights == "default" else config.init_lora_weights,  # type: ignore[arg-type]  # it knows no 16
    )
    try:
        adapted = get_peft_model(model, lora)
    except ValueError as error:
        message = f"lora.target_modules: {str(error).splitlines()[0]}"
        raise ConfigError([Problem("lora.target_modules", message, "target_modules")]) from error
    adapted.peft_config["default"].base_model_name_or_path = base_model
    for module in adapted.modules():
        if isinstance(module, nn.Dropout) and not _learns(adapted, module):
            module.p = 0.0
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return cast_head_inputs(adapted)


def cast_head_inputs(adapted: nn.Module) -> nn.Module:
    """Let fp32 heads take what a bf16 body gives."""
    for name, module in adapted.named_modules():
        if name.endswith("modules_to_save.default"):
            dtype = next(module.parameters()).dtype
            module.register_forward_pre_hook(lambda _, inputs, dtype=dtype: tuple(part.to(dtype) for part in inputs))
    return adapted


def target_modules(model: nn.Module, config: LoraSection) -> Any:
    """The configured targets, or the architecture's query and value projections, or every linear layer."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if config.target_modules == "all-linear" and config.layers_to_transform is not None:
        numbered = [name for name in linear if any(part.isdigit() for part in name.split("."))]
        return sorted({name.rpartition(".")[2] for name in numbered})
    if config.target_modules is not None:
        return config.target_modules
    names = {name.rpartition(".")[2] for name in linear}
    return next((list(pair) for pair in QUERY_VALUE if names.issuperset(pair)), "all-linear")


def adapts_feed_forward(adapted: nn.Module) -> bool:
    """Whether any adapter sits outside of attention."""
    names = (name for name, _ in adapted.named_parameters() if "lora_A" in name)
    return any(not any(part in name for part in ATTENTION) for name in names)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """(trained, all) numbers of parameters; bitsandbytes packs two of 4 bits into one number."""
    sizes = [(p.numel() * (2 if type(p).__name__ == "Params4bit" else 1), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _new_modules(model: nn.Module, loading: Any) -> list[str]:
    """Outermost children that hold a weight which the base model's file has not."""
    keys = {
        key if isinstance(key, str) else key[0] for part in ("missing_keys", "mismatched_keys") for key in loading[part]
    }
    prefix = getattr(model, "base_model_prefix", "")
    paths = [key.split(".") for key in keys]
    heads = {path[0] for path in paths if path[0] != prefix} | {"pooler" for path in paths if path[1:2] == ["pooler"]}
    return sorted(heads) or ["classifier"]


def _learns(adapted: nn.Module, dropout: nn.Module) -> bool:
    """Dropout stays where something learns right behind it: the adapter's own and the new head's."""
    for name, module in adapted.named_modules():
        if module is dropout:
            inside = name.split(".")
            return (
                "lora_dropout" in inside
                or "modules_to_save" in inside
                or (inside[-1] == "dropout" and len(inside) <= 3)
            )
    return False


def quiet() -> None:
    """A new head is expected here, so transformers' warning about it would only alarm."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("peft").setLevel(logging.ERROR)
    # peft 0.21 asks transformers by a name that is to go; nothing that a person here could change.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
