"""Load base models and adapters for training, embeddings and serving, and put LoRA adapters on them.

Every weight is read by `_load_weights` or `attach_adapter`: from a local folder, safetensors only, and never with code that a
model brings along. Tokenizers are loaded by engine.models.text_encoding. Nothing else in the engine calls `from_pretrained`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.config_sections import LoraSection
from engine.devices import DevicePlan
from engine.errors import BaseModelUnavailableError, ConfigError, Problem
from engine.models.base_model_head import Head, settle_head
from engine.models.loaded_weights import brief, check_loading, check_values
from engine.models.module_names import check_module_names, outermost_names, present_names
from engine.models.supported_types import check_type
from engine.models.transformers_output import silence_transformers
from engine.models.weight_files import read_config
from engine.out_of_memory import is_out_of_memory
from engine.sentences import Sentence, gettext_noop
from engine.task_types import HeadKind

# Importing transformers and peft takes seconds, so functions do it when they are called.
if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

ATTENTION_NAMES = ("attention", "attn", "Wqkv")
QUERY_VALUE = (("query", "value"), ("q_lin", "v_lin"), ("q_proj", "v_proj"), ("query_proj", "value_proj"), ("Wqkv",))


def load_encoder(folder: Path, name: str, plan: DevicePlan) -> PreTrainedModel:
    """Load a base model without any head for inference, in the plan's precision and on its device."""
    from transformers import AutoModel

    with _base_model_errors(folder, name):
        model = _load_weights(AutoModel, folder, attn_implementation=plan.attention, dtype=plan.dtype)
    return model.to(plan.device).eval()


def load_classifier(
    folder: Path, name: str, labels: list[str], plan: DevicePlan, head: HeadKind = "sequence"
) -> tuple[PreTrainedModel, Head]:
    """Load a base model for training, with a head that has an output for each of `labels`, in the plan's precision.

    Returns the model and what its head is. Raises BaseModelUnavailableError unless all weights outside of the head come
    from the base model's files and are sound.
    """
    config = read_config(folder, name)
    check_type(config, name, head)
    with _base_model_errors(folder, name):
        model, loading = _load_weights(
            _auto_class(head),
            folder,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            attn_implementation=plan.attention,
            dtype=plan.dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **quantization_options(folder, plan, head),
        )
    check_loading(model, loading, name)
    check_values(model, name)
    return model, settle_head(model, labels, config, loading)


def load_language_model(folder: Path, name: str, plan: DevicePlan) -> PreTrainedModel:
    """Load a base model with its own head for the next token, in the plan's precision.

    Raises BaseModelUnavailableError unless all of its weights are there and sound.
    """
    config = read_config(folder, name)
    check_type(config, name, "causal")
    with _base_model_errors(folder, name):
        model, loading = _load_weights(
            _auto_class("causal"),
            folder,
            # Gemma 2 limits its scores, which no fused attention does.
            attn_implementation="eager" if config.get("attn_logit_softcapping") else "sdpa",
            dtype=plan.dtype,
            output_loading_info=True,
            **quantization_options(folder, plan, "causal"),
        )
    check_loading(model, loading, name)
    check_values(model, name)
    return model


def load_gguf(folder: Path, file: str, config: PretrainedConfig) -> PreTrainedModel:
    """Load a language model from a GGUF file of ours, in fp32. config: of the model, of which GGUF has a part."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    if config.model_type == "mistral":  # in GGUF it is a Llama, which it is within its sliding window
        config = LlamaConfig(**{name: value for name, value in config.to_dict().items() if name != "model_type"})
    model: PreTrainedModel = _load_weights(
        AutoModelForCausalLM, folder, gguf_file=file, config=config, dtype=torch.float32
    )
    return model


def load_classifier_to_serve(
    folder: Path, label_count: int | None = None, head: HeadKind = "sequence"
) -> tuple[PreTrainedModel, set[str]]:
    """Load a base model in fp32; return it and the paths of the modules whose weights its files lack.

    label_count: replaces the base model's own number of labels, and with it a head of another size.
    """
    label_options = {} if label_count is None else {"num_labels": label_count, "ignore_mismatched_sizes": True}
    model, loading = _load_weights(
        _auto_class(head), folder, dtype=torch.float32, output_loading_info=True, **label_options
    )
    return model, {str(key).rpartition(".")[0] for key in loading["missing_keys"]}


def attach_adapter(model: nn.Module, folder: Path) -> PeftModel:
    """Put the saved adapter in a folder on a base model. Reads safetensors only: a pickle could run code."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), use_safetensors=True)


def _auto_class(head: HeadKind) -> Any:
    """Return the class of transformers that loads a base model with this kind of head."""
    import transformers

    return {
        "sequence": transformers.AutoModelForSequenceClassification,
        "token": transformers.AutoModelForTokenClassification,
        "causal": transformers.AutoModelForCausalLM,
    }[head]


def _load_weights(auto_class: Any, folder: Path, **options: Any) -> Any:
    """Call from_pretrained of a transformers AutoModel class; `options` are its own."""
    silence_transformers()
    return auto_class.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, **options
    )


@contextmanager
def _base_model_errors(folder: Path, name: str) -> Iterator[None]:
    """Raise BaseModelUnavailableError for what transformers raises, except where memory ran out: that is handled elsewhere."""
    try:
        yield
    except Exception as error:  # each model's code raises errors of its own, also for a package that it lacks
        if is_out_of_memory(error) or "memory" in str(error):
            raise
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop("The base model {name} can't be loaded: {error}"),
                name=name,
                error=brief(error, folder, name),
            ),
            field="model.name",
        ) from error


def quantization_options(folder: Path, plan: DevicePlan, head: HeadKind = "sequence") -> dict[str, Any]:
    """Return from_pretrained's options for frozen weights in 8 or 4 bits (arXiv 2208.07339, 2305.14314); none without them.

    The modules of the head keep full precision: a new head is trained.
    """
    if plan.quantization is None:
        return {}
    from transformers import AutoConfig, BitsAndBytesConfig  # deferred: takes seconds

    model_config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):  # modules and names only, no weights
        model = _auto_class(head).from_config(model_config)
    body = model.base_model_prefix
    head_modules = [name for name, _module in model.named_children() if name != body]
    config = BitsAndBytesConfig(
        load_in_8bit=plan.quantization == "load_in_8bit",
        load_in_4bit=plan.quantization == "load_in_4bit",
        llm_int8_skip_modules=[*head_modules, f"{body}.pooler"],
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=plan.dtype,
    )
    return {"quantization_config": config, "device_map": {"": str(plan.device)}}


def add_adapter(
    model: nn.Module, config: LoraSection, head: Head, base_model: str, seed: int, kind: HeadKind = "sequence"
) -> PeftModel:
    """Put a new LoRA adapter on a model, with its trained parameters in fp32 and dropout only where it trains something.

    head: its modules are trained in full and saved with the adapter.
    seed: torch is seeded with it first, so that the same seed starts from the same adapter.

    Raises ConfigError if the configuration names a module or a layer that the model lacks.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    check_module_names(model, config)
    torch.manual_seed(seed)
    targets = target_modules(model, config)
    lora = LoraConfig(
        task_type={"sequence": TaskType.SEQ_CLS, "token": TaskType.TOKEN_CLS, "causal": TaskType.CAUSAL_LM}[kind],
        r=config.r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # a float works too
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        exclude_modules=head.modules if targets == "all-linear" else None,
        layers_to_transform=config.layers_to_transform,
        modules_to_save=outermost_names(model, [*head.modules, *(config.modules_to_save or [])]),
        bias=config.bias,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        init_lora_weights=True if config.init_lora_weights == "default" else config.init_lora_weights,  # type: ignore[arg-type]  # pissa_niter_16 is not in its Literal
    )
    try:
        adapted: Any = get_peft_model(model, lora)
    except ValueError as error:
        message = Sentence(gettext_noop("lora.target_modules: {reason}"), reason=str(error).splitlines()[0])
        raise ConfigError([Problem("lora.target_modules", message, "target_modules")]) from error
    peft_config = adapted.peft_config["default"]
    peft_config.base_model_name_or_path = base_model
    # PEFT adds the usual names of heads, whether or not they are there already or exist at all.
    peft_config.modules_to_save = present_names(model, peft_config.modules_to_save)
    # Dropout in frozen layers only costs time. It stays right before trained weights: in the adapter and in the new head.
    for name, module in adapted.named_modules():
        path = name.split(".")
        before_head = path[-1] == "dropout" and len(path) <= 3  # base_model.model.dropout
        is_trained = "lora_dropout" in path or "modules_to_save" in path or before_head
        if isinstance(module, nn.Dropout) and not is_trained:
            module.p = 0.0
    # Small updates would be lost in bf16.
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    cast_head_inputs(adapted)
    return adapted


def cast_head_inputs(adapted: nn.Module) -> nn.Module:
    """Let the trained fp32 heads of a PEFT model take the states of a bf16 encoder; return the model."""

    def cast_inputs(module: nn.Module, inputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        dtype = next(module.parameters()).dtype
        # Embeddings take token ids, which are no floats, and some inputs may be None.
        return tuple(x.to(dtype) if x is not None and x.is_floating_point() else x for x in inputs)

    for name, module in adapted.named_modules():
        if name.endswith("modules_to_save.default"):
            module.register_forward_pre_hook(cast_inputs)
    return adapted


def target_modules(model: nn.Module, config: LoraSection) -> list[str] | str:
    """Return the modules that get an adapter, as PEFT's LoraConfig takes them.

    These are the configured targets, else the architecture's query and value projections, else every linear layer.
    """
    if config.target_modules not in (None, "all-linear"):
        return config.target_modules
    from transformers.pytorch_utils import Conv1D  # deferred: takes seconds

    # GPT-2's linear layers are Conv1D, which PEFT counts as linear too.
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if config.target_modules is None:
        names = {name.rpartition(".")[2] for name in linear}
        for query_value in QUERY_VALUE:
            if names.issuperset(query_value):
                return list(query_value)
    if config.layers_to_transform is None:
        return "all-linear"
    # PEFT refuses layers_to_transform beside "all-linear", so the linear modules of numbered layers are listed.
    numbered = [name for name in linear if any(part.isdigit() for part in name.split("."))]
    return sorted({name.rpartition(".")[2] for name in numbered})


def adapts_feed_forward(adapted: nn.Module) -> bool:
    """Return whether the adapter changes any module outside of attention."""
    names = (name for name, _ in adapted.named_parameters() if "lora_A" in name)
    return any(not any(part in name for part in ATTENTION_NAMES) for name in names)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of trained and of all parameters."""
    trained = 0
    total = 0
    for parameter in model.parameters():
        count = parameter.numel()
        if type(parameter).__name__ == "Params4bit":
            count *= 2  # bitsandbytes stores two 4-bit weights in one number
        total += count
        if parameter.requires_grad:
            trained += count
    return trained, total
