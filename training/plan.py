"""What the form says beside its fields: how many steps a run has, how long it takes, and what should be looked at first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts import quotas
from accounts.models import User
from datasets_app import descriptions
from datasets_app.checks import text_statistics
from datasets_app.models import Finding, Version
from datasets_app.report_page import FINDINGS, tab_address
from engine.config import RunConfig
from engine.data.batches import total_steps
from engine.models.base_models import find_cached, is_offline
from engine.models.plain_templates import notice
from engine.task_types import is_language_model
from web.errors import LorasiteError
from web.sentences import translate

from . import estimates, presets, services
from .base_models import list_base_models
from .chat_templates import has_own_template, require_effect
from .field_words import with_labels


@dataclass(frozen=True, slots=True)
class PlanWarning:
    text: str
    href: str = ""  # where more about it is told


@dataclass(frozen=True, slots=True)
class Plan:
    """What a configuration comes to; `problem` says why it can't be told, and is what a start would be refused with."""

    version: Version | None = None
    steps: int = 0  # about, until the run was measured
    estimate: estimates.Estimate | None = None
    warnings: list[PlanWarning] = field(default_factory=list)
    problem: LorasiteError | None = None


def plan_run(user: User, values: dict[str, object]) -> Plan:
    """Return the plan of a configuration as the form has it. Nothing is queued, and the hub is not asked."""
    try:
        config = services.parse_config(values, user)
        version = services.find_version(user, config)
        require_effect(config.model)
    except LorasiteError as error:
        return Plan(problem=with_labels(error))
    estimate = estimates.find_estimate(config, version)
    return Plan(
        version,
        steps=estimate.forecast.steps if estimate and estimate.forecast else count_steps(config, version),
        estimate=estimate,
        warnings=[
            *data_warnings(version),
            *length_warnings(config, version),
            *model_warnings(config),
            *quota_warnings(user),
        ],
    )


@dataclass(frozen=True, slots=True)
class PresetPlan:
    """What a preset makes of the form: rows, rank, epochs and steps, and seconds if runs like it were measured."""

    rows: int | None
    rank: int
    epochs: float
    steps: int
    seconds: float | None


def plan_preset(name: str, values: Mapping[str, Any], version: Version | None) -> PresetPlan | None:
    """Return what a preset would do with the other values of the form, which name this version; None if they are not valid."""
    settings = presets.fit_loss(presets.own_settings(name, version), values)
    try:
        config = services.parse_for_version(presets.apply_settings(values, settings), version)
    except LorasiteError:
        return None
    estimate = estimates.find_estimate(config, version) if version else None
    training_rows = presets.training_rows(version)
    return PresetPlan(
        rows=config.data.train_samples and min(config.data.train_samples, training_rows or config.data.train_samples),
        rank=config.lora.r,
        epochs=config.training.num_train_epochs,
        steps=count_steps(config, version),
        seconds=estimate.forecast.seconds if estimate and estimate.forecast else None,
    )


def count_steps(config: RunConfig, version: Version | None) -> int:
    """Return the optimizer steps of a run: about, because only the run itself sees which rows are held out or left out."""
    training = config.training
    if version is None:
        return training.max_steps or 0
    rows = version.splits.get("train") or (1 - config.data.eval_fraction) * version.rows
    if config.data.train_samples:
        rows = min(rows, config.data.train_samples)
    if version.kind == version.Kind.TEXT:
        rows *= text_statistics.windows_per_text(version, config.model.name, config.data.max_length)
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return total_steps(training.num_train_epochs, training.max_steps, math.ceil(rows / batch))


def data_warnings(version: Version | None) -> list[PlanWarning]:
    """Return one warning with the findings that harm a training, if there are any."""
    if version is None:
        return []
    severe = [Finding.Severity.ERROR, Finding.Severity.WARNING]
    codes = list(version.findings.filter(severity__in=severe).values_list("code", flat=True))
    if not codes:
        return []
    titles = ", ".join(descriptions.finding_title(code) for code in codes)
    sentence = ngettext(
        "The data has %(n)s warning: %(titles)s.", "The data has %(n)s warnings: %(titles)s.", len(codes)
    )
    return [PlanWarning(sentence % {"n": len(codes), "titles": titles}, tab_address(version, FINDINGS))]


def length_warnings(config: RunConfig, version: Version | None) -> list[PlanWarning]:
    """Say how many conversations are left out because they are too long, if their tokens were counted with the base model."""
    if version is None or not version.is_chat or version.kind == version.Kind.TEXT:  # plain texts are cut into windows
        return []
    model = config.model
    lengths = text_statistics.token_lengths(version, model.name, model.chat_template)
    over, share = text_statistics.share_over(lengths or {}, config.data.max_length)
    if not over:
        return []
    sentence = ngettext(
        "%(n)s conversation (%(percent)s%%) is longer than %(limit)s tokens and is left out.",
        "%(n)s conversations (%(percent)s%%) are longer than %(limit)s tokens and are left out.",
        over,
    )
    facts = {"n": f"{over:,}", "percent": f"{100 * share:.2g}", "limit": f"{config.data.max_length:,}"}
    query = urlencode(
        {
            "version": str(version.number),
            "model": model.name,
            "chat_template": model.chat_template,
            "max_length": str(config.data.max_length),
        }
    )
    page = reverse("datasets:detail", args=[version.dataset.name])
    return [PlanWarning(sentence % facts, f"{page}?{query}#tokens-title")]


def model_warnings(config: RunConfig) -> list[PlanWarning]:
    """Say that the base model has to be downloaded first, or that it can't be."""
    name = config.model.name
    known = next((model for model in list_base_models() if model.name == name), None)
    if (known and known.is_here) or find_cached(name, config.model.revision):
        return template_warnings(config)
    if is_offline():
        return [PlanWarning(_("%(model)s is not on this machine, and downloads are turned off.") % {"model": name})]
    size = f" ({known.size})" if known and known.size else ""
    return [
        PlanWarning(
            _("%(model)s%(size)s is not on this machine. The run downloads it first.") % {"model": name, "size": size}
        )
    ]


def template_warnings(config: RunConfig) -> list[PlanWarning]:
    """Say which chat template a base model on this machine gets that has none of its own."""
    model = config.model
    if not is_language_model(config.task) or has_own_template(model.name, model.revision) is not False:
        return []
    return [PlanWarning(translate(notice(model.chat_template, model.name)))]


def quota_warnings(user: User) -> list[PlanWarning]:
    """Say that the person may not queue another run at the moment."""
    try:
        quotas.require_queue_quota(user)
    except quotas.QuotaReachedError as error:
        return [PlanWarning(str(error.message))]
    return []
