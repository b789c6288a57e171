"""Everything that changes runs: submit, cancel, resume. Pages, API and commands all call these functions."""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import override

from accounts.idempotency import create_once, find_created, fingerprint
from accounts.models import User
from accounts.permissions import require_creator
from accounts.quotas import require_queue_quota, require_storage_quota
from audit.services import record
from datasets_app.checks import text_statistics
from datasets_app.models import Version
from datasets_app.selectors import version_for
from engine import safe_yaml
from engine.config import RunConfig
from engine.config_sections import DataSection
from engine.errors import ConfigError
from engine.safe_yaml import NotYamlError
from engine.task_types import METRICS, TaskType
from experiments import services as experiments
from experiments.models import Experiment
from experiments.selectors import free_name
from web.errors import InvalidError, NotFoundError
from web.sentences import translate
from work import queue

from . import estimates
from .base_models import find_language_mismatch
from .models import Task, WrongStateError
from .sources import check_base_model

# A name that is neither of these is a dataset of the platform.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE_NAME = re.compile(r"(?i)\.(csv|tsv|jsonl?|parquet|txt|xlsx|zip|gz)$")


def parse_config(data: Mapping[str, Any] | str, user: User | None = None) -> RunConfig:
    """Return a mapping or YAML text as a RunConfig; raise Invalid, which names every field at fault.

    With a user, the task type that is left out and the column of pairs are those of that person's dataset.
    """
    if isinstance(data, str):
        data = read_yaml(data)
    version = None
    if user is not None and isinstance(data, Mapping):
        version = known_version(user, dataset_name_of(data))
    return parse_for_version(data, version)


def parse_for_version(data: Mapping[str, Any] | str, version: Version | None) -> RunConfig:
    """Return a configuration as a RunConfig whose dataset is this version, as far as known; raise Invalid like `parse_config`."""
    if version is not None and isinstance(data, Mapping):
        # Before the configuration is validated, because other settings depend on the task type.
        data = {"task": version.task_type, **data}
    try:
        config = RunConfig.from_yaml(data) if isinstance(data, str) else RunConfig.parse(data)
    except ConfigError as error:
        problems = [{"field": p.field, "message": translate(p.message), "code": p.code} for p in error.problems]
        raise InvalidError(
            _("Some values of the configuration are invalid; nothing was queued."), problems=problems
        ) from None
    if version is not None:
        config.data = config.data.model_copy(update={"text_pair_column": version.run_columns["text_pair_column"]})
    return config


def known_version(user: User, name: str) -> Version | None:
    """Return the dataset version of this name; None for a dataset of the hub, and for a name that `submit` will refuse."""
    with suppress(InvalidError):
        return find_stored_version(user, name) if name else None
    return None


def leave_out_task(config: dict[str, Any], usual: str | None) -> dict[str, Any]:
    """Return a complete configuration without the task type if it is the usual one, and without that type's usual metric.

    So that it fits another dataset, too.
    """
    task = config.get("task", RunConfig.model_fields["task"].default)
    if task != usual:
        return config
    training = dict(config.get("training", {}))
    if training.get("metric_for_best_model") == METRICS[task][0]:
        del training["metric_for_best_model"]
    return {name: value for name, value in config.items() if name != "task"} | {"training": training}


def usual_task_type(user: User, dataset_name: str) -> TaskType | None:
    """Return what a run on this dataset of the person learns unless told otherwise; None if nobody knows."""
    version = known_version(user, dataset_name)
    return version.task_type if version else None


def dataset_name_of(data: Mapping[str, Any]) -> str:
    """Return the name of the dataset in a configuration that is not validated yet; empty if it is no text."""
    section = data.get("data", {})
    name = section.get("dataset_name", DataSection().dataset_name) if isinstance(section, Mapping) else ""
    return name if isinstance(name, str) else ""


def read_yaml(text: str) -> Any:
    """Return the content of a YAML text, or the text itself if it is not valid, which `RunConfig.from_yaml` reports."""
    try:
        content = safe_yaml.read(text)
    except NotYamlError:
        return text
    return {} if content is None else content


def config_like(experiment: Experiment, dataset_name: str = "") -> dict[str, Any]:
    """Return the configuration of an earlier run under a free name, on other data if `dataset_name` is given."""
    config = experiment.config | {"experiment_name": free_name(experiment.name)}
    if experiment.version:
        config = leave_out_task(config, experiment.version.task_type)
    if dataset_name:
        config["data"] = config["data"] | {"dataset_name": dataset_name}
    return config


def submit(
    *, user: User, config: RunConfig, idempotency_key: str | None = None, cloned_from: Experiment | None = None
) -> Task:
    """Store a run and, after the commit, send its id to the queue. While Redis is away, the run waits in the database.

    cloned_from: the run whose settings this one started with. The same key of the same person returns the same task; with
    another configuration it raises Conflict.
    """
    require_creator(user)
    tasks = Task.objects.select_related("experiment")
    request_hash = fingerprint("train", config.model_dump(mode="json"))
    earlier_task = find_created(user, idempotency_key, request_hash, tasks)
    if earlier_task:
        return earlier_task
    version = check(user=user, config=config)  # may ask the hub, so not while the transaction holds a lock
    return create_once(
        user, idempotency_key, request_hash, tasks, lambda: create_task(user, config, version, cloned_from)
    )


def create_task(user: User, config: RunConfig, version: Version | None, cloned_from: Experiment | None = None) -> Task:
    """Store experiment and task; only call it in a transaction, after whose commit the task goes to the queue."""
    User.objects.select_for_update().get(pk=user.pk)  # so that two submits do not count the quota at the same time
    require_queue_quota(user)
    require_storage_quota(user)
    if "experiment_name" not in config.model_fields_set:
        config = config.model_copy(update={"experiment_name": free_name(config.experiment_name)})
    experiment = experiments.create(
        owner=user,
        name=config.experiment_name,
        config=config.model_dump(mode="json"),
        version=version,
        dataset_name=str(version) if version else config.data.dataset_name,
        base_model=config.model.name,
        cloned_from=cloned_from,
    )
    task = Task.objects.create(
        owner=user,
        experiment=experiment,
        device_kind=queue.device_kind_for(config.training.device),
        foreseen=estimates.stored_estimate(config, version),
        notices=stored_notices(config, version),
    )
    record("task.submit", user=user, obj=task, experiment=experiment.name, task_id=str(task.pk))
    transaction.on_commit(partial(queue.send, Task, task.pk))
    return task


def estimate(*, user: User, config: RunConfig, again: bool = False) -> estimates.Estimate:
    """Return the estimate of a run; queue a measurement if there is none yet, or `again` if it failed."""
    require_creator(user)
    return estimates.request_estimate(user, config, check(user=user, config=config), again=again)


def validate(*, user: User, config: RunConfig) -> list[dict[str, str]]:
    """Raise what `submit` would raise, and queue nothing. Return what a person should know before the run, as notices."""
    version = check(user=user, config=config)
    if "experiment_name" in config.model_fields_set:
        experiments.check_name(config.experiment_name)
    return find_notices(config, version)


def find_notices(config: RunConfig, version: Version | None) -> list[dict[str, str]]:
    """Return what a person should know before the run, as the notices of a task, in the language of the reader."""
    mismatch = find_language_mismatch(version, config.model.name)
    return [mismatch.as_notice()] if mismatch else []


def stored_notices(config: RunConfig, version: Version | None) -> list[dict[str, str]]:
    """Return the notices in English, as those of the engine are stored."""
    with override("en"):
        return find_notices(config, version)


def check(*, user: User, config: RunConfig) -> Version | None:
    """Check what only the platform knows: dataset, base model and workers. Return the version; None for a hub dataset."""
    version = find_version(user, config)
    check_base_model(config.model, config.task)
    if config.model.quantization and queue.device_kind_for(config.training.device) != "cuda":
        field = f"model.{config.model.quantization}"
        raise InvalidError(
            _(
                "{field} needs an NVIDIA GPU, and this run would go to a worker without one. Leave it out, or add a "
                "worker with a GPU and select it with training.device cuda."
            ).format(field=field),
            field=field,
        )
    return version


def find_stored_version(user: User, name: str) -> Version | None:
    """Return the dataset version of this name, None if it is a dataset of the hub.

    Raises Invalid if there is none, or if no run can learn from it.
    """
    if FILE_NAME.search(name) or name.startswith((".", "/", "~")) or "\\" in name or ":" in name:
        raise InvalidError(
            _("File paths work on the command line only. Add the file as a dataset, then enter the dataset's name."),
            field="data.dataset_name",
        )
    if HUB_ID.fullmatch(name):
        return None
    return version_for(user, name)


def find_version(user: User, config: RunConfig) -> Version | None:
    """Return the dataset version of a run, None if its data are on the hub; raise Invalid if they cannot be trained on."""
    version = find_stored_version(user, config.data.dataset_name)
    if version:
        check_task(version, config.task)
        check_validation_rules(version, config)
    return version


def check_task(version: Version, task: TaskType) -> None:
    """Raise Invalid unless a run can learn this task type from the version."""
    from engine.data.label_columns import LABEL_COLUMNS  # imports polars, which takes half a second

    facts = {"version": version, "kind": version.get_kind_display(), "usual": version.task_type, "task": task}
    if task not in version.task_types:
        message = _(
            "{version} has {kind}, which is data for {usual}, not for {task}. Leave task out, or choose other data."
        )
        if task == "regression" and version.kind == Version.Kind.LABELS:
            message = _(
                "{version} has labels that are not numbers, and regression needs a number per text. "
                "Leave task out, or choose other data."
            )
        raise InvalidError(message.format(**facts), field="task")
    if task != "regression" and len(version.labels) < LABEL_COLUMNS[task].fewest_labels:
        message = _("{version} has only one label, so there is nothing to learn. Add rows with another label.")
        raise InvalidError(message.format(**facts), field="data.dataset_name")


def check_validation_rules(version: Version, config: RunConfig) -> None:
    """Raise Invalid if the version has a finding that the run's own rules call an error."""
    codes = [code for code, severity in config.data.validation_rules.items() if severity == "error"]
    if "over_token_limit" in codes:
        # The stored finding is for the sample model and the default limit, so count with this run's own.
        codes.remove("over_token_limit")
        asked = (version, config.model.name, config.model.chat_template)
        lengths = text_statistics.token_lengths(*asked)
        if lengths is None:
            check_base_model(config.model, config.task)  # counting would load the model's tokenizer
            lengths = text_statistics.count_tokens(*asked)
        count, share = text_statistics.share_over(lengths, config.data.max_length)
        if count:
            message = _(
                "Refused by your rule for over_token_limit: {count} rows ({percent}%) are longer than {limit} tokens."
            ).format(count=count, percent=f"{100 * share:.2g}", limit=config.data.max_length)
            raise InvalidError(message, field="data.validation_rules")
    finding = version.findings.filter(code__in=codes).first()
    if finding:
        raise InvalidError(
            _("Refused by your rule for {code}: {message}").format(code=finding.code, message=finding.message),
            field="data.validation_rules",
        )


@transaction.atomic
def cancel(*, user: User, task: Task) -> Task:
    """End a waiting task at once; a running one ends within a step and keeps its last checkpoint."""
    task.cancel()
    record("task.cancel", user=user, obj=task, task_id=str(task.pk))
    return task


@transaction.atomic
def resume(*, user: User, task: Task) -> Task:
    """Queue a cancelled or failed run again; it continues from its last good checkpoint."""
    version = task.experiment.version
    if version and not version.path.exists():
        raise NotFoundError(
            _("The data of this run were deleted, so it cannot resume. Add the dataset and train again.")
        )
    require_queue_quota(task.owner)
    task.queue_again()
    record("task.resume", user=user, obj=task, task_id=str(task.pk))
    transaction.on_commit(partial(queue.send, Task, task.pk))
    return task


__all__ = [
    "WrongStateError",
    "cancel",
    "check",
    "check_task",
    "config_like",
    "dataset_name_of",
    "estimate",
    "leave_out_task",
    "parse_config",
    "read_yaml",
    "resume",
    "submit",
    "usual_task_type",
    "validate",
]
