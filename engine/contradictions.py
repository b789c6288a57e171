"""Settings of a configuration that exclude each other, or that mean nothing for its task type."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config_sections import Configuration, TrainingSection
from engine.errors import Problem
from engine.task_types import LOSSES, METRICS, TaskType, is_language_model

CODE = "contradiction"
OF_PREFERENCES = frozenset({"training.dpo_beta", "training.label_smoothing", "training.rpo_alpha"})
OF_LANGUAGE_MODELS = frozenset({"system.forgetting_check"})
OF_LABELS = frozenset(
    {
        "model.num_labels",
        "data.text_pair_column",
        "training.class_weights",
        "training.label_smoothing_factor",
        "training.loss",
        "training.focal_gamma",
        "training.huber_delta",
        "system.baseline",
    }
)


def unused_settings(task: TaskType) -> frozenset[str]:
    """Return the settings that mean nothing for a task type; forms leave them out."""
    unused = OF_LABELS if is_language_model(task) else OF_LANGUAGE_MODELS
    return unused if task == "preference" else unused | OF_PREFERENCES


def find_contradictions(config: Configuration) -> Iterator[Problem]:
    """Yield the settings that exclude each other. Each problem names one of them, the rarer setting."""
    lora = config.lora
    training = config.training
    quantization = f"model.{config.model.quantization}" if config.model.quantization else ""
    uses_pissa = lora.init_lora_weights.startswith("pissa")
    if lora.use_dora and uses_pissa:
        message = "lora.use_dora and lora.init_lora_weights pissa exclude each other. Remove one of them."
        yield Problem("lora.use_dora", message, CODE)
    if training.early_stopping_patience is not None and training.eval_strategy == "no":
        message = (
            "training.early_stopping_patience counts evaluations, but training.eval_strategy is no. Remove one of them."
        )
        yield Problem("training.early_stopping_patience", message, CODE)
    if training.precision in {"bf16", "int8"} and lora.trains_base_weights:
        message = (
            f"training.precision {training.precision} trains adapters only. "
            "Remove it, or remove lora.bias and lora.modules_to_save."
        )
        yield Problem("training.precision", message, CODE)
    if config.model.load_in_8bit and config.model.load_in_4bit:
        message = "model.load_in_8bit and model.load_in_4bit exclude each other. Remove one of them."
        yield Problem("model.load_in_8bit", message, CODE)
    if quantization and lora.trains_base_weights:
        message = f"{quantization} trains adapters only. Remove it, or remove lora.bias and lora.modules_to_save."
        yield Problem(quantization, message, CODE)
    if quantization and uses_pissa:
        message = (
            f"{quantization} and lora.init_lora_weights pissa exclude each other, "
            "because PiSSA changes the frozen weights. Remove one of them."
        )
        yield Problem(quantization, message, CODE)
    if quantization and training.device in {"cpu", "mps"}:
        message = f"{quantization} needs an NVIDIA GPU, but training.device is {training.device}. Remove one of them."
        yield Problem(quantization, message, CODE)


def find_unfit_settings(config: Configuration) -> Iterator[Problem]:
    """Yield the settings that mean nothing for the run's task type."""
    task = config.task
    training = config.training
    if training.metric_for_best_model not in METRICS[task]:
        message = (
            f"training.metric_for_best_model {training.metric_for_best_model} is no metric of {task}. "
            f"Choose one of {', '.join(METRICS[task])}."
        )
        yield Problem("training.metric_for_best_model", message, CODE)
    if config.loss not in LOSSES[task]:
        message = f"training.loss {config.loss} is no loss of {task}. Choose one of {', '.join(LOSSES[task])}."
        yield Problem("training.loss", message, CODE)
    if config.loss == "focal" and training.label_smoothing_factor:
        message = "training.loss focal and training.label_smoothing_factor exclude each other. Remove one of them."
        yield Problem("training.loss", message, CODE)
    if (task == "regression" or is_language_model(task)) and training.class_weights != "none":
        yield Problem("training.class_weights", f"training.class_weights needs labels, and {task} has none.", CODE)
    has_smoothing = task in {"sequence_classification", "token_classification"}
    if not has_smoothing and training.label_smoothing_factor:
        message = f"training.label_smoothing_factor has no meaning for {task}. Remove it."
        yield Problem("training.label_smoothing_factor", message, CODE)
    infers_outputs = task in {"regression", "token_classification"} or is_language_model(task)
    if infers_outputs and config.model.num_labels is not None:
        message = f"model.num_labels is not used by {task}, whose outputs follow from the data. Remove it."
        yield Problem("model.num_labels", message, CODE)
    if task == "token_classification" and config.data.text_pair_column:
        message = "data.text_pair_column has no meaning for token_classification, which finds entities in one text. Remove it."
        yield Problem("data.text_pair_column", message, CODE)
    if is_language_model(task) and config.data.text_pair_column:
        message = f"data.text_pair_column has no meaning for {task}, whose rows are conversations. Remove it."
        yield Problem("data.text_pair_column", message, CODE)
    if task != "preference":
        yield from find_settings_of_preferences(config)


def find_settings_of_preferences(config: Configuration) -> Iterator[Problem]:
    """Yield the settings that only training on preferences has, where they were changed."""
    for name in ("dpo_beta", "label_smoothing", "rpo_alpha"):
        if getattr(config.training, name) != TrainingSection.model_fields[name].default:
            message = f"training.{name} has a meaning for preference only, and the task is {config.task}. Remove it."
            yield Problem(f"training.{name}", message, CODE)
