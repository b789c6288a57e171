"""The configuration of a run: one Pydantic model, one YAML form; field names as transformers and peft have them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from engine import safe_yaml
from engine.errors import ConfigError, Problem

SAMPLE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
FindingCode = Literal[
    "empty_text", "too_short", "too_long", "exact_duplicate", "near_duplicate", "label_conflict", "split_leakage",
    "label_imbalance", "rare_label", "mixed_language", "markup", "control_characters", "encoding", "personal_data",
    "over_token_limit", "label_noise",
]  # fmt: skip
MOST_PROBLEMS = 100
LONGEST_SHOWN = 200  # characters of what was given, in an error; names have 200 at most
FewBits = Literal["load_in_8bit", "load_in_4bit"]
LayerName = Annotated[str, Field(min_length=1, max_length=200)]


def _(text: str) -> str:
    """Marks a sentence that pages translate; the engine itself speaks English."""
    return text


def _or_number(schema: dict[str, Any]) -> None:
    """A name's JSON schema: YAML takes 2024 for a number, and it is a name all the same."""
    text = {key: schema.pop(key) for key in ("type", "minLength", "maxLength", "pattern")}
    schema["anyOf"] = [text, {"type": "number"}]


def _holds_truth(value: Any) -> bool:
    found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return any(isinstance(one, bool) for one in found)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


class Section(BaseModel):
    """Base of every section: unknown fields are refused, assignments are checked too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes true for 1, and 1 for true; a configuration that says so is mistaken."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if annotation is bool and isinstance(value, int | float) and not isinstance(value, bool):
            raise PydanticCustomError("bool_type", "Input should be true or false")
        if annotation is not bool and _holds_truth(value) and not _is_section(annotation):
            raise PydanticCustomError("number_type", "Input should be neither true nor false")
        return value


class ModelSection(Section):
    """Which base model is adapted."""

    name: str = Field(
        SAMPLE_MODEL,
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description=_("Hub id such as distilbert-base-uncased, or the name of a folder under BASE_MODELS_DIR."),
    )
    num_labels: int | None = Field(
        None, ge=2, le=1000, description=_("Number of labels; left out: counted in the data.")
    )
    revision: str | None = Field(
        None, max_length=100, pattern=r"^[A-Za-z0-9._-]+$", description=_("Branch, tag or commit on the hub.")
    )
    load_in_8bit: bool = Field(
        False, description=_("Frozen weights in 8 bits, for less memory; needs an NVIDIA GPU and bitsandbytes.")
    )
    load_in_4bit: bool = Field(
        False, description=_("Frozen weights in 4 bits (nf4), for least memory; needs an NVIDIA GPU and bitsandbytes.")
    )

    @property
    def few_bits(self) -> FewBits | None:
        """The field by which the frozen weights are held in 8 or 4 bits, where they are."""
        return "load_in_8bit" if self.load_in_8bit else "load_in_4bit" if self.load_in_4bit else None


class LoraSection(Section):
    """The adapter, in PEFT's terms."""

    r: int = Field(8, ge=1, le=512, description=_("Rank of the adapter's two matrices."))
    lora_alpha: float = Field(16, gt=0, le=4096, description=_("Scale: the update is multiplied by lora_alpha / r."))
    lora_dropout: float = Field(0.0, ge=0, lt=1, description=_("Dropout on the adapter's input."))
    target_modules: Literal["all-linear"] | list[LayerName] | None = Field(
        None,
        description=_("Layers to adapt; left out: the right ones for the architecture; all-linear: each linear layer."),
    )
    layers_to_transform: list[int] | None = Field(
        None,
        description=_("Indexes of the layers that get an adapter; left out: all. Layers below the lowest stay frozen."),
    )
    modules_to_save: list[LayerName] | None = Field(
        None, description=_("Further modules trained in full and saved; new heads are always among them.")
    )
    bias: Literal["none", "all", "lora_only"] = Field("none", description=_("Which biases are trained."))
    use_rslora: bool = Field(False, description=_("Rank-stabilised scale: lora_alpha / sqrt(r)."))
    use_dora: bool = Field(
        False, description=_("DoRA: learns each weight's magnitude apart from its direction; slower.")
    )
    init_lora_weights: Literal["default", "gaussian", "pissa", "pissa_niter_16", "olora", "orthogonal"] = Field(
        "default", description=_("How the adapter starts; default makes it start as zero.")
    )
    loraplus_lr_ratio: float | None = Field(
        None, ge=1, le=1000, description=_("LoRA+: the learning rate of matrix B over that of matrix A.")
    )

    @property
    def trains_base_weights(self) -> bool:
        """Whether weights of the base model learn beside the adapter; bf16 would swallow their small steps."""
        return self.bias != "none" or bool(self.modules_to_save)


class DataSection(Section):
    """Which rows are learnt and how they are cut."""

    dataset_name: str = Field(
        "tweets-en",
        min_length=1,
        max_length=500,
        description=_("One of your datasets, as name or name@version, or a hub id."),
    )
    dataset_config: str | None = Field(None, max_length=200, description=_("Configuration of a dataset of the hub."))
    text_column: str = Field("text", min_length=1, max_length=200, description=_("Column with the texts."))
    label_column: str = Field("label", min_length=1, max_length=200, description=_("Column with the labels."))
    split_column: str = Field(
        "split",
        min_length=1,
        max_length=200,
        description=_("Column with train, eval and test; used when the data have it."),
    )
    train_samples: int | None = Field(None, ge=2, description=_("Train on at most this many rows; left out: all."))
    eval_samples: int | None = Field(None, ge=1, description=_("Evaluate on at most this many rows; left out: all."))
    eval_fraction: float = Field(
        0.1, gt=0, lt=0.9, description=_("Share of the rows held out for evaluation when the data have no splits.")
    )
    max_length: int = Field(128, ge=4, le=8192, description=_("Longest text in tokens."))
    truncation: Literal["truncate", "refuse"] = Field(
        "truncate", description=_("What happens to longer texts: cut and counted, or the run is refused.")
    )
    validation_rules: dict[FindingCode, Literal["error", "warning", "ignore"]] = Field(
        default_factory=dict, description=_("Severity of a finding, by its code; an error refuses the run.")
    )


class TrainingSection(Section):
    """How the adapter learns, in the terms of transformers' TrainingArguments."""

    learning_rate: float = Field(5e-4, gt=0, le=1, description=_("Highest learning rate of AdamW."))
    per_device_train_batch_size: int = Field(32, ge=1, le=4096, description=_("Rows in a training batch."))
    per_device_eval_batch_size: int = Field(64, ge=1, le=4096, description=_("Rows in an evaluation batch."))
    gradient_accumulation_steps: int = Field(1, ge=1, le=1024, description=_("Batches that make one optimiser step."))
    num_train_epochs: float = Field(3, gt=0, le=1000, description=_("Passes over the training rows."))
    max_steps: int | None = Field(None, ge=1, description=_("Optimiser steps in all; overrides num_train_epochs."))
    warmup_ratio: float = Field(
        0.06, ge=0, lt=1, description=_("Share of the steps over which the learning rate rises.")
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description=_("How the learning rate falls after the warm-up.")
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description=_("Weight decay of AdamW."))
    max_grad_norm: float = Field(
        1.0, ge=0, le=1000, description=_("Gradients are clipped to this norm; 0: not clipped.")
    )
    label_smoothing_factor: float = Field(0.0, ge=0, lt=1, description=_("Share of each label spread over the others."))
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none", description=_("Weight of each label in the loss; balanced: the rarer, the heavier.")
    )
    eval_strategy: Literal["epoch", "steps", "no"] = Field("epoch", description=_("When the model is evaluated."))
    eval_steps: int = Field(200, ge=1, description=_("Steps between evaluations with eval_strategy steps."))
    save_strategy: Literal["epoch", "steps", "no"] = Field(
        "epoch", description=_("When a checkpoint is written; one is written after each evaluation in any case.")
    )
    save_steps: int = Field(200, ge=1, description=_("Steps between checkpoints with save_strategy steps."))
    logging_steps: int = Field(10, ge=1, description=_("Steps between two points of the loss curve."))
    metric_for_best_model: Literal["accuracy", "macro_f1", "macro_precision", "macro_recall", "loss"] = Field(
        "accuracy", description=_("Metric that chooses the best checkpoint.")
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, le=1000, description=_("Stop after this many evaluations without improvement; left out: never.")
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description=_("Where to train; auto takes the fastest.")
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description=_(
            "Number format of products with the frozen weights; auto takes what the device is fast in. "
            "int8 is for training steps; the weights stay bf16."
        ),
    )
    seed: int = Field(42, ge=0, lt=2**32, description=_("Start of every random choice: same seed, same run."))
    deterministic: bool = Field(
        False, description=_("Only operations that give the same bits each time; slower on a GPU.")
    )


class SystemSection(Section):
    """What concerns the machine and not the result."""

    num_threads: int | None = Field(
        None, ge=1, le=1024, description=_("CPU threads; left out: the cores this process may use.")
    )
    baseline: bool = Field(True, description=_("Also train a linear model on word counts, to compare with."))


class RunConfig(Section):
    """Everything that defines a run. Read it with `parse` or `from_yaml`: they tell all problems at once."""

    experiment_name: str = Field(
        "experiment",
        min_length=1,
        max_length=80,
        pattern=r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*$",
        description=_("Name of the experiment and of its folder: letters, digits and . _ - after a letter or digit."),
        json_schema_extra=_or_number,
    )
    task: Literal["sequence_classification"] = Field("sequence_classification", description=_("What the model learns."))
    model: ModelSection = Field(default_factory=ModelSection, description=_("Base model."))
    lora: LoraSection = Field(default_factory=LoraSection, description=_("Adapter."))
    data: DataSection = Field(default_factory=DataSection, description=_("Data."))
    training: TrainingSection = Field(default_factory=TrainingSection, description=_("Training."))
    system: SystemSection = Field(default_factory=SystemSection, description=_("Machine."))

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> RunConfig:
        """Check a mapping; ConfigError lists every problem (100 at most) with its field and what is allowed."""
        if not isinstance(data, Mapping):
            raise ConfigError(
                [Problem("", "A configuration is a mapping of sections, such as model: and lora:.", "type")]
            )
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise ConfigError(_problems(error)) from None

    @classmethod
    def from_yaml(cls, text: str) -> RunConfig:
        """Read the YAML form; ConfigError names the line when it is no YAML."""
        try:
            data = safe_yaml.read(text)
        except safe_yaml.NotYamlError as error:
            raise ConfigError([Problem("", str(error), "yaml")]) from None
        return cls.parse({} if data is None else data)

    def concise(self) -> dict[str, Any]:
        """What differs from the defaults, and always the names of experiment, base model and data."""
        found = self.model_dump(mode="json", exclude_defaults=True)
        return {
            **found,
            "experiment_name": self.experiment_name,
            "model": {"name": self.model.name, **found.get("model", {})},
            "data": {"dataset_name": self.data.dataset_name, **found.get("data", {})},
        }

    def to_yaml(self) -> str:
        """The YAML form, which `from_yaml` reads back to an equal configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @field_validator("experiment_name", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """YAML reads 2024 as a number and 2024-11-25 as a date."""
        return str(value) if isinstance(value, int | float | date) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if found := next(_contradictions(self), None):
            raise ValueError(found)
        return self


def _contradictions(config: RunConfig) -> Iterator[str]:
    """What fields say against each other; a sentence starts with the field."""
    lora, bits, pissa = config.lora, config.model.few_bits, config.lora.init_lora_weights.startswith("pissa")
    if lora.use_dora and pissa:
        yield "lora.use_dora and lora.init_lora_weights pissa exclude each other. Leave one of them out."
    if config.training.precision in {"bf16", "int8"} and lora.trains_base_weights:
        yield (
            f"training.precision {config.training.precision} trains adapters only. "
            "Leave it out, or leave out lora.bias and lora.modules_to_save."
        )
    if config.model.load_in_8bit and config.model.load_in_4bit:
        yield "model.load_in_8bit and model.load_in_4bit exclude each other. Leave one of them out."
    if bits and lora.trains_base_weights:
        yield f"model.{bits} trains adapters only. Leave it out, or leave out lora.bias and lora.modules_to_save."
    if bits and pissa:
        yield f"model.{bits} leaves no weights for lora.init_lora_weights pissa to start from. Leave one of them out."
    if bits and config.training.device in {"cpu", "mps"}:
        yield f"model.{bits} needs an NVIDIA GPU, and training.device says {config.training.device}. Leave one of them out."


def _problems(error: ValidationError) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for item in error.errors(include_url=False):
        path = [str(part)[:LONGEST_SHOWN] for part in item["loc"]]
        problem = _problem(path, item)
        problems.setdefault(problem.field, problem)
        if len(problems) == MOST_PROBLEMS:  # whoever sends 10,000 unknown fields waits for no sentence about each
            break
    return list(problems.values())


def _problem(path: list[str], item: Any) -> Problem:
    section = RunConfig.model_fields.get(path[0]) if path else None
    model = section.annotation if section and isinstance(section.annotation, type) else None
    depth = 2 if model and issubclass(model, Section) and len(path) > 1 else 1
    field = ".".join(path[:depth])
    if item["type"] == "extra_forbidden":
        return Problem(field, _unknown(field, path[depth - 1], model if depth == 2 else RunConfig), "unknown_field")
    if not path:
        message = str(item["ctx"]["error"])
        return Problem(message.split()[0], message, "contradiction")
    given = f" {_shown(item['input'])} was given." if isinstance(item.get("input"), str | int | float | bool) else ""
    return Problem(field, f"{field}: {_allowed(field, item)}{given}", item["type"])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _unknown(field: str, name: str, model: Any) -> str:
    names = list(model.model_fields)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {field.removesuffix(name)}{near[0]}?" if near else f"Known fields: {', '.join(names)}."
    return f"{field} is not a field of the configuration. {hint}"


def _allowed(field: str, item: Any) -> str:
    if field == "experiment_name":
        return "1 to 80 letters, digits, dots, underscores or hyphens are allowed, a letter or digit first."
    if field == "model.name":
        return "a hub id such as distilbert-base-uncased or a folder's name under BASE_MODELS_DIR is allowed, never a path."
    if field == "lora.target_modules":
        return "nothing, all-linear or a list of layer names is allowed."
    if field == "data.validation_rules":
        codes = ", ".join(get_args(FindingCode))
        return f"finding codes ({codes}) with error, warning or ignore are allowed."
    message = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ").rstrip(".")
    return f"must be {message}." if item["msg"].startswith("Input should be") else f"{message}."
