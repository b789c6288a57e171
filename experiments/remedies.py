"""Say why a run that finished did not learn, and which changes of its configuration may help.

The engine finds out whether a run learned, and the probable cause: `result` in metrics.json. Runs of an older release lack it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.config_sections import SAMPLE_MODEL, TrainingSection
from web.sentences import join_translated

from .task_types import METRIC_TITLES

Settings = Mapping[str, Any]  # a configuration or metrics.json
Remedy = dict[str, dict[str, object]]  # changes of a configuration by section: {"training": {"learning_rate": 0.0005}}

USUAL_RATE: float = TrainingSection.model_fields["learning_rate"].default
HIGHEST_RATE = 0.01  # a higher one is not worth a try with AdamW
ENOUGH_STEPS = 100  # the least that a longer run gets
MULTILINGUAL_MODEL = "xlm-roberta-base"  # its vocabulary covers 100 languages


class Change(NamedTuple):
    """A setting by its dotted name, before and after."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a run did not learn."""

    headline: str
    cause: str  # the engine's code, or empty
    sentences: list[str]  # the probable cause, then its evidence
    remedy: Remedy  # empty if no setting is at fault
    button: str  # starts the form with the remedy; empty without one
    changes: list[Change]

    @property
    def message(self) -> str:
        return join_translated([self.headline, self.explanation])

    @property
    def explanation(self) -> str:
        return join_translated(self.sentences)

    def lines(self) -> list[str]:
        """Return the message and the changes that may help, for the terminal."""
        changes = [f"  {change.path}: {change.before} → {change.after}" for change in self.changes]
        return [self.message, *([_("This may help:"), *changes] if changes else [])]


def diagnose(metrics: Settings, config: Settings) -> Diagnosis | None:
    """Return why the run of these metrics did not learn; None if it did, or if nobody knows."""
    result = metrics.get("result") or {}
    if result.get("learned") is not False:
        return None
    facts = result.get("evidence") or {}
    cause = CAUSES.get(result.get("cause", ""), UNKNOWN_CAUSE)
    remedy = cause.remedy(metrics, config)
    return Diagnosis(
        headline=headline_for(facts),
        cause=result.get("cause") or "",
        sentences=[cause.sentence % known_facts(metrics, config), *evidence(metrics)],
        remedy=remedy,
        button=str(cause.button) if remedy else "",
        changes=changes_of(config, remedy),
    )


def headline_for(facts: Settings) -> str:
    """Return what happened: the model is no better than one that ignores the texts, or by less than chance explains."""
    if facts.get("accuracy", 0) > facts.get("majority_accuracy", 1):
        return _(
            "The run finished, but the model is not clearly better than always predicting the most frequent label."
        )
    score = facts.get("score")
    if score is not None and score > facts.get("baseline", 1):
        sentences = {
            "macro_average_precision": _(
                "The run finished, but the model is not clearly better than giving labels at random."
            ),
            "r2": _("The run finished, but the model is not clearly better than always predicting the mean."),
            "entity_f1": _("The run finished, but the model is not clearly better than finding no entity."),
            "token_accuracy": _("The run finished, but the model is not clearly better than its base model."),
        }
        if facts.get("metric") in sentences:
            return sentences[facts["metric"]]
    return _("The run finished, but the model did not learn.")


def outcome(metrics: Settings, config: Settings) -> dict[str, Any]:
    """Return what the API says about a result: learned, cause, message and remedy."""
    diagnosis = diagnose(metrics, config)
    return {
        "learned": (metrics.get("result") or {}).get("learned"),
        "cause": diagnosis.cause if diagnosis else "",
        "message": diagnosis.message if diagnosis else "",
        "remedy": diagnosis.remedy if diagnosis else {},
    }


def apply_remedy(config: dict[str, Any], remedy: Remedy) -> dict[str, Any]:
    """Return the configuration with the changes of a remedy."""
    return config | {section: config.get(section, {}) | changes for section, changes in remedy.items()}


def changes_of(config: Settings, remedy: Remedy) -> list[Change]:
    """Return the settings that a remedy changes."""
    return [
        Change(f"{section}.{name}", shown(config.get(section, {}).get(name)), shown(value))
        for section, settings in remedy.items()
        for name, value in settings.items()
    ]


def shown(value: object) -> str:
    """Return a setting as text."""
    if value is None:
        return _("default")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def known_facts(metrics: Settings, config: Settings) -> dict[str, object]:
    """Return the numbers that the sentences about causes name."""
    facts = metrics["result"].get("evidence") or {}
    training = config.get("training", {})
    rate = training.get("learning_rate", USUAL_RATE)
    return {
        "rate": shown(rate),
        "highest_rate": shown(facts.get("highest_learning_rate", rate)),  # of matrix B, with LoRA+
        "steps": metrics.get("train", {}).get("steps", 0),
        "precision": facts.get("precision") or training.get("precision", "auto"),
    }


def evidence(metrics: Settings) -> list[str]:
    """Return what speaks for the cause, beside the scores, which `verdicts.verdict` tells: a sentence each."""
    facts = metrics["result"].get("evidence") or {}
    sentences = []
    if facts.get("metric") and "score" in facts:
        score = facts["score"]
        sentence = _("%(metric)s is %(score)s, and %(baseline).3f without reading the texts.")
        if facts["metric"] == "token_accuracy":
            sentence = _("%(metric)s is %(score)s, and %(baseline).3f for the base model.")
        shown_score = _("undefined") if score is None else f"{score:.3f}"
        title = METRIC_TITLES.get(facts["metric"], facts["metric"])
        sentences.append(sentence % {"metric": title, "score": shown_score, "baseline": facts.get("baseline", 0.0)})
    if facts.get("unknown_token_share"):
        sentence = _("%(share).1f%% of the tokens in the texts are unknown to the base model.")
        sentences.append(sentence % {"share": 100 * facts["unknown_token_share"]})
    if facts.get("loss_at_start") is not None and facts.get("loss_at_end") is not None:
        sentence = _("Training loss went from %(first).3f to %(last).3f.")
        sentences.append(sentence % {"first": facts["loss_at_start"], "last": facts["loss_at_end"]})
    if metrics["result"].get("cause") == "precision" and facts.get("median_grad_norm") is not None:
        sentence = _("The gradients have almost vanished (median norm %(norm)s).")
        sentences.append(sentence % {"norm": f"{facts['median_grad_norm']:.1g}"})
    if facts.get("constant_prediction") is not None:
        sentence = _("Every held-out row is predicted as “%(label)s”.")
        sentences.append(sentence % {"label": facts["constant_prediction"][:60]})
    return sentences


class Cause(NamedTuple):
    """A row of the table of causes: what is said about it, and what is changed."""

    sentence: Promise  # formatted with `known_facts`
    button: Promise
    remedy: Callable[[Settings, Settings], Remedy]


def lower_rate(metrics: Settings, config: Settings) -> Remedy:
    """Change to a tenth of the rate and at most the usual one, with gradients clipped and without LoRA+."""
    training = config.get("training", {})
    rate = training.get("learning_rate", USUAL_RATE)
    remedy: Remedy = {}
    changes: dict[str, object] = {}
    if config.get("lora", {}).get("loraplus_lr_ratio"):
        remedy["lora"] = {"loraplus_lr_ratio": None}
    if rate > USUAL_RATE or not remedy:  # else the rate is high only because of LoRA+
        changes["learning_rate"] = round_rate(min(rate / 10, USUAL_RATE))
    if training.get("max_grad_norm") == 0:
        changes["max_grad_norm"] = 1.0
    return remedy | ({"training": changes} if changes else {})


def higher_rate(metrics: Settings, config: Settings) -> Remedy:
    rate = config.get("training", {}).get("learning_rate", USUAL_RATE)
    if rate >= HIGHEST_RATE:
        return {}
    return {"training": {"learning_rate": round_rate(min(max(10 * rate, USUAL_RATE), HIGHEST_RATE))}}


def round_rate(rate: float) -> float:
    return float(f"{rate:.2g}")


def other_base_model(metrics: Settings, config: Settings) -> Remedy:
    """Change to a base model that reads the texts: the sample model for plain English letters, else a multilingual one."""
    texts = "".join(row.get("text", "") for row in metrics.get("worst", []))
    ascii_share = sum(character.isascii() for character in texts) / max(1, len(texts))
    name = SAMPLE_MODEL if texts and ascii_share > 0.9 else MULTILINGUAL_MODEL
    model = config.get("model", {})
    lora = config.get("lora", {})
    if model.get("name") == name:
        return {}
    remedy: Remedy = {"model": {"name": name}}
    if model.get("revision"):
        remedy["model"]["revision"] = None
    # Names and numbers of layers are those of the present base model.
    layers = {name: None for name in ("layers_to_transform", "modules_to_save") if lora.get(name) is not None}
    if isinstance(lora.get("target_modules"), list):
        layers["target_modules"] = None
    return remedy | ({"lora": dict(layers)} if layers else {})


def full_precision(metrics: Settings, config: Settings) -> Remedy:
    remedy: Remedy = {}
    if config.get("training", {}).get("precision") != "fp32":
        remedy["training"] = {"precision": "fp32"}
    quantized = {name: False for name in ("load_in_8bit", "load_in_4bit") if config.get("model", {}).get(name)}
    return remedy | ({"model": dict(quantized)} if quantized else {})


def more_epochs(metrics: Settings, config: Settings) -> Remedy:
    """Change to three times as many steps, and at least ENOUGH_STEPS."""
    training = config.get("training", {})
    steps = metrics.get("train", {}).get("steps", 0)
    rows_per_step = training.get("per_device_train_batch_size", 32) * training.get("gradient_accumulation_steps", 1)
    data = metrics.get("data", {})
    rows = data.get("windows") or data.get("train_rows", 0)  # long texts are learned window by window
    steps_per_epoch = max(1, ceil(rows / rows_per_step))
    epochs = ceil(max(3 * steps, ENOUGH_STEPS) / steps_per_epoch)
    changes: dict[str, object] = {"num_train_epochs": min(epochs, 1000)}
    if training.get("max_steps"):
        changes["max_steps"] = None
    return {"training": changes}


def nothing(metrics: Settings, config: Settings) -> Remedy:
    return {}


CAUSES = {
    "learning_rate_too_high": Cause(
        gettext_lazy("Probable cause: the learning rate (%(highest_rate)s) is too high."),
        gettext_lazy("Train again with a lower learning rate"),
        lower_rate,
    ),
    "learning_rate_too_low": Cause(
        gettext_lazy("Probable cause: the learning rate (%(rate)s) is too low."),
        gettext_lazy("Train again with a higher learning rate"),
        higher_rate,
    ),
    "unknown_tokens": Cause(
        gettext_lazy("Probable cause: the base model does not know the words or characters of these texts."),
        gettext_lazy("Train again with another base model"),
        other_base_model,
    ),
    "precision": Cause(
        gettext_lazy("Probable cause: the precision %(precision)s is too coarse for this base model."),
        gettext_lazy("Train again in full precision"),
        full_precision,
    ),
    "too_few_steps": Cause(
        gettext_lazy("Probable cause: too few training steps (%(steps)d)."),
        gettext_lazy("Train again for more epochs"),
        more_epochs,
    ),
    "data": Cause(
        gettext_lazy(
            "Probable cause: the data. The rows may be too few, the texts may say too little about their labels, or many "
            "labels may be wrong."
        ),
        gettext_lazy("Train again with changes"),
        nothing,
    ),
}
UNKNOWN_CAUSE = Cause(gettext_lazy("The cause is not known."), gettext_lazy("Train again with changes"), nothing)
