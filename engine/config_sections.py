"""The sections of a run's configuration and their fields, named as in transformers and PEFT."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from engine.config_problems import ContradictionsError
from engine.errors import Problem
from engine.models.plain_templates import USUAL as USUAL_TEMPLATE
from engine.models.plain_templates import PlainTemplate
from engine.names import LONGEST_NAME
from engine.sentences import Sentence
from engine.sentences import gettext_noop as _
from engine.task_types import LOSSES, Metric, TaskType

SAMPLE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
FindingCode = Literal[
    "empty_text",
    "too_short",
    "too_long",
    "exact_duplicate",
    "near_duplicate",
    "label_conflict",
    "split_leakage",
    "label_imbalance",
    "rare_label",
    "mixed_language",
    "markup",
    "control_characters",
    "encoding",
    "personal_data",
    "over_token_limit",
    "label_noise",
    "similar_labels",
    "no_label",
    "scores_as_labels",
]
Quantization = Literal["load_in_8bit", "load_in_4bit"]
LabelWeight = Annotated[float, Field(ge=0)]
LayerName = Annotated[str, Field(min_length=1, max_length=200)]


def _allow_numbers(schema: dict[str, Any]) -> None:
    """Change the JSON schema of a name so that numbers are allowed: YAML reads the name 2024 as a number."""
    text = {key: schema.pop(key) for key in ("type", "minLength", "maxLength")}
    schema["anyOf"] = [text, {"type": "number"}]


class Section(BaseModel):
    """Base of all sections: unknown fields are refused, and assignments are validated too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _separate_booleans_from_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Refuse true where a number is expected and 1 where a boolean is: Pydantic would convert both silently."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if annotation is bool:
            if isinstance(value, int | float) and not isinstance(value, bool):
                raise PydanticCustomError("bool_type", "Input should be true or false")
            return value
        items: Iterable[object] = [value]
        if isinstance(value, dict):
            items = value.values()
        elif isinstance(value, list):
            items = value
        if any(isinstance(item, bool) for item in items) and section_class(annotation) is None:
            raise PydanticCustomError("number_type", "Input should be neither true nor false")
        return value


def section_class(annotation: object) -> type[Section] | None:
    """Return the annotation if it is a section, else None."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


class ModelSection(Section):
    """The base model that the adapter is trained for."""

    name: str = Field(
        SAMPLE_MODEL,
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description=_("Hub id such as distilbert-base-uncased, or the name of a folder under BASE_MODELS_DIR."),
    )
    num_labels: int | None = Field(
        None, ge=2, le=1000, description=_("Number of labels. Default: as many as the data have.")
    )
    revision: str | None = Field(
        None,
        max_length=100,
        pattern=r"^(refs/pr/)?[A-Za-z0-9._-]+$",
        description=_("Branch, tag or commit of the model on the hub."),
    )
    load_in_8bit: bool = Field(
        False, description=_("Load the frozen weights in 8 bits to save memory. Needs an NVIDIA GPU and bitsandbytes.")
    )
    load_in_4bit: bool = Field(
        False,
        description=_(
            "Load the frozen weights in 4 bits (nf4) to save the most memory. Needs an NVIDIA GPU and bitsandbytes."
        ),
    )
    chat_template: PlainTemplate = Field(
        USUAL_TEMPLATE,
        description=_(
            "Language models: how conversations are written for a base model without a chat template. It is saved with the model."
        ),
    )

    @property
    def quantization(self) -> Quantization | None:
        """Return the enabled field of load_in_8bit and load_in_4bit, or None."""
        if self.load_in_8bit:
            return "load_in_8bit"
        if self.load_in_4bit:
            return "load_in_4bit"
        return None


class LoraSection(Section):
    """The LoRA adapter. Fields are those of PEFT's LoraConfig."""

    r: int = Field(8, ge=1, le=512, description=_("Rank of the LoRA matrices."))
    lora_alpha: float = Field(
        16, gt=0, le=4096, description=_("LoRA scaling: the update is multiplied by lora_alpha / r.")
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description=_("Dropout probability on the adapter's input."))
    target_modules: Literal["all-linear"] | list[LayerName] | None = Field(
        None,
        description=_(
            "Modules that get an adapter: all-linear for every linear layer, or a list of names. "
            "null: query and value projections, the default for single labels."
        ),
    )
    layers_to_transform: list[int] | None = Field(
        None,
        description=_("Indexes of the layers that get an adapter. Default: all layers."),
    )
    modules_to_save: list[LayerName] | None = Field(
        None,
        description=_(
            "More modules to train in full and save with the adapter. A new classification head is always included."
        ),
    )
    bias: Literal["none", "all", "lora_only"] = Field("none", description=_("Which bias parameters are trained."))
    use_rslora: bool = Field(False, description=_("Use rank-stabilized LoRA: the scaling is lora_alpha / sqrt(r)."))
    use_dora: bool = Field(
        False, description=_("Use DoRA, which learns magnitude and direction of the weights separately. Slower.")
    )
    init_lora_weights: Literal["default", "gaussian", "pissa", "pissa_niter_16", "olora", "orthogonal"] = Field(
        "default",
        description=_(
            "How the adapter is initialized. With default, the first step starts from the unchanged base model."
        ),
    )
    loraplus_lr_ratio: float | None = Field(
        None, ge=1, le=1000, description=_("LoRA+: ratio of the learning rate of matrix B to that of matrix A.")
    )

    @property
    def trains_base_weights(self) -> bool:
        """Return whether weights of the base model are trained as well. They need fp32: bf16 loses their small updates."""
        return self.bias != "none" or bool(self.modules_to_save)


class DataSection(Section):
    """The dataset, its columns and how its texts are read."""

    dataset_name: str = Field(
        "tweets-en",
        min_length=1,
        max_length=500,
        description=_("A dataset of yours as name or name@version, or the id of a dataset on the hub."),
    )
    dataset_config: str | None = Field(None, max_length=200, description=_("Configuration (subset) of a hub dataset."))
    text_column: str = Field("text", min_length=1, max_length=200, description=_("Name of the text column."))
    text_pair_column: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description=_("Name of the column of second texts, where a row is a pair of texts."),
    )
    label_column: str = Field("label", min_length=1, max_length=200, description=_("Name of the label column."))
    split_column: str = Field(
        "split",
        min_length=1,
        max_length=200,
        description=_("Name of the column that says train, eval or test, if the data have one."),
    )
    train_samples: int | None = Field(None, ge=2, description=_("Train on at most this many rows. Default: all rows."))
    eval_samples: int | None = Field(
        None, ge=1, description=_("Evaluate on at most this many rows. Default: all rows.")
    )
    eval_fraction: float = Field(
        0.1, gt=0, lt=0.9, description=_("Fraction of the rows held out for evaluation if the data have no splits.")
    )
    max_length: int = Field(128, ge=4, le=8192, description=_("Maximum text length in tokens."))
    truncation: Literal["truncate", "refuse"] = Field(
        "truncate", description=_("What to do with longer texts: truncate them, or refuse the run.")
    )
    validation_rules: dict[FindingCode, Literal["error", "warning", "ignore"]] = Field(
        default_factory=dict, description=_("Severity per finding code. A finding with severity error refuses the run.")
    )


class TrainingSection(Section):
    """How the adapter is trained. Fields are those of transformers' TrainingArguments where it has them."""

    learning_rate: float = Field(5e-4, gt=0, le=1, description=_("Peak learning rate of AdamW."))
    per_device_train_batch_size: int = Field(32, ge=1, le=4096, description=_("Rows per training batch."))
    per_device_eval_batch_size: int = Field(64, ge=1, le=4096, description=_("Rows per evaluation batch."))
    gradient_accumulation_steps: int = Field(
        1, ge=1, le=1024, description=_("Batches whose gradients are added up for one optimizer step.")
    )
    num_train_epochs: float = Field(3, gt=0, le=1000, description=_("Number of passes over the training rows."))
    max_steps: int | None = Field(
        None, ge=1, description=_("Total number of optimizer steps. Overrides num_train_epochs.")
    )
    warmup_ratio: float = Field(
        0.06, ge=0, lt=1, description=_("Fraction of the steps in which the learning rate rises to its peak.")
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description=_("How the learning rate changes after the warm-up.")
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description=_("Weight decay of AdamW."))
    max_grad_norm: float = Field(
        1.0, ge=0, le=1000, description=_("Maximum gradient norm; larger gradients are clipped. 0 disables clipping.")
    )
    label_smoothing_factor: float = Field(
        0.0,
        ge=0,
        lt=1,
        description=_("Label smoothing: fraction of each label's weight that is spread over all labels."),
    )
    class_weights: Literal["none", "balanced"] | dict[str, LabelWeight] = Field(
        "none", description=_("Weight of each label in the loss. balanced gives rare labels more weight.")
    )
    loss: Literal["cross_entropy", "focal", "mean_squared", "huber", "dpo"] | None = Field(
        None,
        description=_(
            "Loss function. Default: cross_entropy, mean_squared for regression, or dpo for preferences. focal gives rows that are already "
            "right less weight; huber is less sensitive to outliers."
        ),
    )
    focal_gamma: float = Field(
        2.0, ge=0, le=10, description=_("Focal loss: strength of the effect. 0 is cross entropy.")
    )
    huber_delta: float = Field(
        1.0, gt=0, le=100, description=_("Huber loss: error in standard deviations above which it grows linearly.")
    )
    dpo_beta: float = Field(
        0.1,
        gt=0,
        le=10,
        description=_("Preferences: how closely the model stays to its base model. Higher values stay closer."),
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description=_("Preferences: expected fraction of pairs whose answers are swapped by mistake (cDPO)."),
    )
    rpo_alpha: float = Field(
        0.0,
        ge=0,
        le=100,
        description=_("Preferences: weight of the cross entropy of chosen answers, which is added to the loss (RPO)."),
    )
    eval_strategy: Literal["epoch", "steps", "no"] = Field(
        "epoch", description=_("When to evaluate the model. It is always evaluated at the end.")
    )
    eval_steps: int = Field(200, ge=1, description=_("Steps between evaluations if eval_strategy is steps."))
    save_strategy: Literal["epoch", "steps", "no"] = Field(
        "epoch", description=_("When to save a checkpoint. One is always saved after each evaluation.")
    )
    save_steps: int = Field(200, ge=1, description=_("Steps between checkpoints if save_strategy is steps."))
    logging_steps: int = Field(10, ge=1, description=_("Steps between two points on the loss curve."))
    metric_for_best_model: Metric = Field(
        "accuracy",
        description=_(
            "Metric that decides which checkpoint is best. Default: accuracy, or micro_f1, rmse or entity_f1 for other task "
            "types."
        ),
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, le=1000, description=_("Stop after this many evaluations without improvement. Default: never.")
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description=_("Device to train on. auto chooses the fastest one available.")
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description=_(
            "Precision of products with the frozen weights. auto chooses the fastest one of the device; "
            "int8 applies to training steps only, and the weights stay bf16."
        ),
    )
    seed: int = Field(42, ge=0, lt=2**32, description=_("Random seed. The same seed gives the same run."))
    deterministic: bool = Field(False, description=_("Use only deterministic operations. Slower on a GPU."))

    @field_validator("class_weights", mode="before")
    @classmethod
    def _label_names_as_text(cls, value: object) -> object:
        """Turn label names that YAML reads as numbers or dates back into text."""
        if not isinstance(value, dict):
            return value
        if any(isinstance(name, bool) for name in value):
            message = Sentence(
                _(
                    "training.class_weights: YAML reads yes, no, on and off as true and false. Put such labels in quotes."
                )
            )
            raise ContradictionsError([Problem("training.class_weights", message, "label_name")])
        names = [str(name) if isinstance(name, int | float | date) else name for name in value]
        if len(set(names)) < len(names):
            message = Sentence(_("training.class_weights names a label twice. Remove one of its weights."))
            raise ContradictionsError([Problem("training.class_weights", message, "label_name")])
        return dict(zip(names, value.values(), strict=True))


class SystemSection(Section):
    """Settings of the machine, which do not change the result."""

    num_threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description=_("Number of CPU threads. Default: OMP_NUM_THREADS, or the cores that this process may use."),
    )
    baseline: bool = Field(
        True, description=_("Also train a linear model on word counts as a baseline to compare with.")
    )
    forgetting_check: bool = Field(
        True,
        description=_("Also measure the loss of a language model on ordinary sentences before and after training."),
    )


class Configuration(Section):
    """What a configuration consists of; `engine.config.RunConfig` reads and checks it."""

    experiment_name: str = Field(
        "experiment",
        min_length=1,
        max_length=LONGEST_NAME,
        description=_(
            "Name of the experiment. Letters and digits of any script and . _ - are allowed; it starts with a letter or digit."
        ),
        json_schema_extra=_allow_numbers,
    )
    task: TaskType = Field(
        "sequence_classification",
        description=_(
            "What the model learns: one label per text, any number of labels, a score, entities, an assistant's answers, "
            "or which of two answers is preferred."
        ),
    )
    model: ModelSection = Field(default_factory=ModelSection, description=_("Base model."))
    lora: LoraSection = Field(default_factory=LoraSection, description=_("Adapter."))
    data: DataSection = Field(default_factory=DataSection, description=_("Data."))
    training: TrainingSection = Field(default_factory=TrainingSection, description=_("Training."))
    system: SystemSection = Field(default_factory=SystemSection, description=_("Machine."))

    @property
    def loss(self) -> str:
        """Return the loss function of the run: the configured one, or the usual one of its task type."""
        return self.training.loss or LOSSES[self.task][0]
