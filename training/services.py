"""The only way in for page, API and command: submit, cancel, resume."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.idempotency import fingerprint, made_before, once
from accounts.models import User
from accounts.permissions import require_creator
from accounts.quotas import require_queue, require_storage
from audit.services import record
from datasets_app.checks import text_statistics
from datasets_app.models import Version
from datasets_app.selectors import version_for
from engine.config import RunConfig
from engine.errors import ConfigError
from experiments import services as experiments
from experiments.models import Experiment
from experiments.selectors import free_name
from web.errors import Invalid, NotFound
from work import queue

from . import estimates
from .models import Task, WrongState
from .sources import check_base_model

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE_NAME = re.compile(r"(?i)\.(csv|tsv|jsonl?|parquet|txt|xlsx|zip|gz)$")


def parse_config(data: Mapping[str, Any] | str) -> RunConfig:
    """A mapping or YAML text as a RunConfig; Invalid names every field at fault."""
    try:
        return RunConfig.from_yaml(data) if isinstance(data, str) else RunConfig.parse(data)
    except ConfigError as error:
        problems = [{"field": p.field, "message": p.message, "code": p.code} for p in error.problems]
        raise Invalid(_("The configuration needs a look; nothing was queued."), problems=problems) from None


def submit(*, user: User, config: RunConfig, idempotency_key: str | None = None) -> Task:
    """Store a run and queue its id after the commit; with Redis away the run waits in the database.

    The same key of the same person gives the same task; with another configuration it is a Conflict.
    """
    require_creator(user)
    tasks, mark = Task.objects.select_related("experiment"), fingerprint("train", config.model_dump(mode="json"))
    if known := made_before(user, idempotency_key, mark, tasks):
        return cast(Task, known)
    version = check(user=user, config=config)  # may ask the hub, so not while the transaction holds a lock
    with once(user, idempotency_key, mark, tasks) as found:
        found.made = found.made or _create(user, config, version)
        return cast(Task, found.made)


def _create(user: User, config: RunConfig, version: Version | None) -> Task:
    User.objects.select_for_update().get(pk=user.pk)  # a quota is counted by one submit at a time
    require_queue(user)
    require_storage(user)
    named = _named(config)
    experiment = experiments.create(
        owner=user,
        name=named.experiment_name,
        config=named.model_dump(mode="json"),
        version=version,
        dataset_name=str(version) if version else config.data.dataset_name,
        base_model=config.model.name,
    )
    kind = queue.kind_for(config.training.device)
    foreseen = estimates.known(config, version)
    task = Task.objects.create(owner=user, experiment=experiment, device_kind=kind, foreseen=foreseen)
    record("task.submit", user=user, obj=task, experiment=experiment.name, task_id=str(task.pk))
    transaction.on_commit(partial(queue.send, Task, task.pk))
    return task


def estimate(*, user: User, config: RunConfig, again: bool = False) -> estimates.Estimate:
    """What a run would take. Queues a measurement where nobody has made it yet, or `again` after one that failed."""
    require_creator(user)
    return estimates.ask(user, config, check(user=user, config=config), again=again)


def validate(*, user: User, config: RunConfig) -> None:
    """Raise what `submit` would, and queue nothing."""
    check(user=user, config=config)
    if "experiment_name" in config.model_fields_set:
        experiments.check_name(config.experiment_name)


def check(*, user: User, config: RunConfig) -> Version | None:
    """What only the platform can check: the dataset (None: one of the hub) and the base model."""
    version = _dataset(user, config)
    check_base_model(config.model)
    _check_few_bits(config)
    return version


def _check_few_bits(config: RunConfig) -> None:
    field = f"model.{config.model.few_bits}"
    if config.model.few_bits and queue.kind_for(config.training.device) != "cuda":
        raise Invalid(
            _(
                "{field} needs an NVIDIA GPU, and this run would go to a worker without one. Leave it out, or add a "
                "worker with a GPU and ask for it with training.device cuda."
            ).format(field=field),
            field=field,
        )


def _dataset(user: User, config: RunConfig) -> Version | None:
    name = config.data.dataset_name
    if FILE_NAME.search(name) or name.startswith((".", "/", "~")) or "\\" in name or ":" in name:
        raise Invalid(
            _("A file's path is taken on the command line only. Add the file as a dataset, then give its name."),
            field="data.dataset_name",
        )
    if HUB_ID.fullmatch(name):
        return None
    version = version_for(user, name)
    _check_version(version, config)
    return version


def _check_version(version: Version, config: RunConfig) -> None:
    if len(version.labels) < 2:
        raise Invalid(
            _("{version} has one label only, so there is nothing to tell apart. Add rows of another label.").format(
                version=version
            ),
            field="data.dataset_name",
        )
    refusing = [code for code, severity in config.data.validation_rules.items() if severity == "error"]
    if "over_token_limit" in refusing:  # the stored finding is that of the sample model and the usual limit
        refusing.remove("over_token_limit")
        _check_tokens(version, config)
    if finding := version.findings.filter(code__in=refusing).first():
        raise Invalid(
            _("Refused by your rule for {code}: {message}").format(code=finding.code, message=finding.message),
            field="data.validation_rules",
        )


def _check_tokens(version: Version, config: RunConfig) -> None:
    """Invalid where texts are longer than this run reads, by the tokenizer of its own base model."""
    lengths = text_statistics.tokens(version, config.model.name)
    if lengths is None:
        check_base_model(config.model)
        lengths = text_statistics.count_tokens(version, config.model.name)
    over, share = text_statistics.share_over(lengths, config.data.max_length)
    if over:
        message = _(
            "Refused by your rule for over_token_limit: {count} rows ({percent} %) are longer than {limit} tokens."
        )
        said = message.format(count=over, percent=f"{100 * share:.2g}", limit=config.data.max_length)
        raise Invalid(said, field="data.validation_rules")


def _named(config: RunConfig) -> RunConfig:
    """A run without a name of its own gets a free one."""
    if "experiment_name" in config.model_fields_set:
        return config
    return config.model_copy(update={"experiment_name": free_name(config.experiment_name)})


@transaction.atomic
def cancel(*, user: User, task: Task) -> Task:
    """A waiting task ends at once; a running one within a step, with its last checkpoint kept."""
    task.cancel()
    record("task.cancel", user=user, obj=task, task_id=str(task.pk))
    return task


@transaction.atomic
def resume(*, user: User, task: Task) -> Task:
    """Queue a cancelled or failed run again; it goes on from its last good checkpoint."""
    _check_still_there(task.experiment)
    require_queue(task.owner)
    task.queue_again()
    record("task.resume", user=user, obj=task, task_id=str(task.pk))
    transaction.on_commit(partial(queue.send, Task, task.pk))
    return task


def _check_still_there(experiment: Experiment) -> None:
    if experiment.version and not experiment.version.path.exists():
        raise NotFound(_("The data of this run are gone, so it can't go on. Add the dataset and train anew."))


__all__ = ["WrongState", "cancel", "check", "estimate", "parse_config", "resume", "submit", "validate"]
