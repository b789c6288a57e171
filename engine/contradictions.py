"""Settings of a configuration that exclude each other, or that mean nothing for its task type."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config_sections import Configuration, ModelSection, TrainingSection
from engine.errors import Problem
from engine.sentences import Sentence, gettext_noop
from engine.task_types import LOSSES, METRICS, TaskType, is_language_model

CODE = "contradiction"
OF_PREFERENCES = frozenset({"training.dpo_beta", "training.label_smoothing", "training.rpo_alpha"})
OF_LANGUAGE_MODELS = frozenset({"system.forgetting_check", "model.chat_template"})
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
        message = exclude("lora.use_dora", "lora.init_lora_weights pissa")
        yield Problem("lora.use_dora", message, CODE)
    if training.early_stopping_patience is not None and training.eval_strategy == "no":
        message = Sentence(
            gettext_noop(
                "training.early_stopping_patience counts evaluations, but training.eval_strategy is no. Remove one of them."
            )
        )
        yield Problem("training.early_stopping_patience", message, CODE)
    if training.precision in {"bf16", "int8"} and lora.trains_base_weights:
        message = adapters_only(f"training.precision {training.precision}")
        yield Problem("training.precision", message, CODE)
    if config.model.load_in_8bit and config.model.load_in_4bit:
        message = exclude("model.load_in_8bit", "model.load_in_4bit")
        yield Problem("model.load_in_8bit", message, CODE)
    if quantization and lora.trains_base_weights:
        message = adapters_only(quantization)
        yield Problem(quantization, message, CODE)
    if quantization and uses_pissa:
        message = Sentence(
            gettext_noop(
                "{setting} and lora.init_lora_weights pissa exclude each other, "
                "because PiSSA changes the frozen weights. Remove one of them."
            ),
            setting=quantization,
        )
        yield Problem(quantization, message, CODE)
    if quantization and training.device in {"cpu", "mps"}:
        message = Sentence(
            gettext_noop("{setting} needs an NVIDIA GPU, but training.device is {device}. Remove one of them."),
            setting=quantization,
            device=training.device,
        )
        yield Problem(quantization, message, CODE)


def find_unfit_settings(config: Configuration) -> Iterator[Problem]:
    """Yield the settings that mean nothing for the run's task type."""
    task = config.task
    training = config.training
    if training.metric_for_best_model not in METRICS[task]:
        message = Sentence(
            gettext_noop("training.metric_for_best_model {metric} is no metric of {task}. Choose one of {metrics}."),
            metric=training.metric_for_best_model,
            task=task,
            metrics=", ".join(METRICS[task]),
        )
        yield Problem("training.metric_for_best_model", message, CODE)
    if config.loss not in LOSSES[task]:
        message = Sentence(
            gettext_noop("training.loss {loss} is no loss of {task}. Choose one of {losses}."),
            loss=config.loss,
            task=task,
            losses=", ".join(LOSSES[task]),
        )
        yield Problem("training.loss", message, CODE)
    if config.loss == "focal" and training.label_smoothing_factor:
        message = exclude("training.loss focal", "training.label_smoothing_factor")
        yield Problem("training.loss", message, CODE)
    if (task == "regression" or is_language_model(task)) and training.class_weights != "none":
        message = Sentence(gettext_noop("training.class_weights needs labels, and {task} has none."), task=task)
        yield Problem("training.class_weights", message, CODE)
    has_smoothing = task in {"sequence_classification", "token_classification"}
    if not has_smoothing and training.label_smoothing_factor:
        message = Sentence(
            gettext_noop("training.label_smoothing_factor has no meaning for {task}. Remove it."), task=task
        )
        yield Problem("training.label_smoothing_factor", message, CODE)
    infers_outputs = task in {"regression", "token_classification"} or is_language_model(task)
    if infers_outputs and config.model.num_labels is not None:
        message = Sentence(
            gettext_noop("model.num_labels is not used by {task}, whose outputs follow from the data. Remove it."),
            task=task,
        )
        yield Problem("model.num_labels", message, CODE)
    if task == "token_classification" and config.data.text_pair_column:
        message = Sentence(
            gettext_noop(
                "data.text_pair_column has no meaning for token_classification, which finds entities in one text. Remove it."
            )
        )
        yield Problem("data.text_pair_column", message, CODE)
    if is_language_model(task) and config.data.text_pair_column:
        message = Sentence(
            gettext_noop("data.text_pair_column has no meaning for {task}, whose rows are conversations. Remove it."),
            task=task,
        )
        yield Problem("data.text_pair_column", message, CODE)
    if not is_language_model(task) and config.model.chat_template != ModelSection.model_fields["chat_template"].default:
        message = Sentence(
            gettext_noop(
                "model.chat_template has a meaning for language models only, and the task is {task}. Remove it."
            ),
            task=task,
        )
        yield Problem("model.chat_template", message, CODE)
    if task != "preference":
        yield from find_settings_of_preferences(config)


def find_settings_of_preferences(config: Configuration) -> Iterator[Problem]:
    """Yield the settings that only training on preferences has, where they were changed."""
    for name in ("dpo_beta", "label_smoothing", "rpo_alpha"):
        if getattr(config.training, name) != TrainingSection.model_fields[name].default:
            message = Sentence(
                gettext_noop("training.{name} has a meaning for preference only, and the task is {task}. Remove it."),
                name=name,
                task=config.task,
            )
            yield Problem(f"training.{name}", message, CODE)


def exclude(setting: str, other: str) -> Sentence:
    return Sentence(
        gettext_noop("{setting} and {other} exclude each other. Remove one of them."), setting=setting, other=other
    )


def adapters_only(setting: str) -> Sentence:
    return Sentence(
        gettext_noop("{setting} trains adapters only. Remove it, or remove lora.bias and lora.modules_to_save."),
        setting=setting,
    )
