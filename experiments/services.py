"""Create, fill and delete experiments, and hand out their files."""

import contextlib
import errno
import json
import os
import tempfile
import zipfile
from typing import IO, Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts import removals
from accounts.models import Removal, User
from accounts.permissions import visible
from audit.services import record
from datasets_app.models import Version
from engine.names import normalise_name
from web.errors import ConflictError, LorasiteError, NotFoundError
from web.names import named_alike, require_valid_name
from work.paths import remove_on_commit

from .margins import margin_in
from .models import Experiment, RegisteredModel
from .names import RESERVED_EXPERIMENTS
from .selectors import files, free_name, is_taken
from .task_types import USUAL, score_of, task_type_of


class NameTakenError(ConflictError):
    code = "name_taken"


class ModelMissingError(LorasiteError):
    code = "model_missing"
    status = 500


@transaction.atomic
def create(
    *,
    owner: User,
    name: str,
    config: dict[str, Any],
    version: Version | None,
    dataset_name: str,
    base_model: str,
    cloned_from: Experiment | None = None,
) -> Experiment:
    """Create the row that a run fills. Its name is taken for everybody; Invalid or NameTaken if it can't be used."""
    name = normalise_name(name)
    check_name(name)
    # A prediction that names both gets the registered model: the run would be hidden behind somebody else's model.
    models = RegisteredModel.objects.filter(named_alike(name))
    if models.exists() and not visible(owner, models, manage=True).exists():
        raise name_taken(name)
    try:
        with transaction.atomic():  # a savepoint, so that the caller's transaction outlives the error below
            return Experiment.objects.create(
                owner=owner,
                name=name,
                config=config,
                version=version,
                dataset_name=dataset_name,
                dataset_hash=version.hash if version else "",
                base_model=base_model,
                task_type=config.get("task", USUAL),
                cloned_from=cloned_from,
            )
    except IntegrityError:
        raise name_taken(name) from None


def check_name(name: str) -> None:
    """Raise InvalidError or NameTakenError unless an experiment may have this name."""
    require_valid_name(name, field="experiment_name", reserved=RESERVED_EXPERIMENTS)
    if is_taken(name):
        raise name_taken(name)


def name_taken(name: str) -> NameTakenError:
    """Return the error that also suggests a free name."""
    free = free_name(name)
    message = _("There is already an experiment called %(name)s. %(free)s is free.") % {"name": name, "free": free}
    return NameTakenError(message, field="experiment_name", suggestion=free)


def record_result(*, experiment: Experiment, metrics: dict[str, Any]) -> None:
    """Store a run's metrics, once the model's files are known to be readable; else ModelMissing."""
    check_model(experiment)
    evaluation = metrics["eval"]
    experiment.metrics = metrics
    experiment.task_type = task_type_of(metrics)
    experiment.score = score_of(metrics)
    experiment.score_margin = margin_in(metrics, experiment.score_name)
    experiment.accuracy = evaluation.get("accuracy")
    experiment.macro_f1 = evaluation.get("macro_f1")
    experiment.eval_loss = evaluation["loss"]
    experiment.tokens_per_second = metrics["train"]["tokens_per_second"]
    experiment.runtime_s = metrics["train"]["runtime_s"]
    experiment.learned = metrics.get("result", {}).get("learned")
    experiment.save(
        update_fields=[
            "metrics",
            "task_type",
            "score",
            "score_margin",
            "accuracy",
            "macro_f1",
            "eval_loss",
            "tokens_per_second",
            "runtime_s",
            "learned",
        ]
    )


def check_model(experiment: Experiment) -> None:
    """Read the adapter's header and configuration; raise ModelMissing if the folder could not be served."""
    from safetensors import SafetensorError, safe_open  # heavy, and only workers need it

    folder = experiment.final_model
    try:
        for name in ("adapter_config.json", "lorasite.json"):
            json.loads((folder / name).read_bytes())
        with safe_open(folder / "adapter_model.safetensors", framework="numpy") as tensors:
            has_weights = bool(tensors.keys())
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelMissingError(_("The run ended, but its model can't be read: %s") % error) from None
    if not has_weights:
        raise ModelMissingError(_("The run ended, but its adapter holds no weights."))


def carry_out_removal(user: User, experiment: Experiment) -> None:
    """Delete an experiment that was removed on a page a while ago. `Experiment.removed_by` names this function."""
    delete(user=user, experiment=experiment)


def require_deletable(experiment: Experiment) -> None:
    """Raise ConflictError while the run is queued or running, and for a folder that cannot be removed.

    In a transaction, the run stays locked, so that nobody resumes it meanwhile.
    """
    task = getattr(experiment, "task", None)
    if task:
        task.refresh_from_db(from_queryset=type(task).objects.select_for_update())
        if not task.finished:
            raise ConflictError(_("This run has not ended. Cancel it first; nothing was deleted."))
    folder = experiment.folder
    # The folder goes after the commit, when it would be too late to refuse.
    if folder.exists() and not os.access(folder.parent, os.W_OK):
        reason = os.strerror(errno.EACCES)
        raise ConflictError(_("Its folder can't be removed (%s), so nothing was deleted.") % reason)


@transaction.atomic
def remove(*, user: User, experiment: Experiment) -> Removal | None:
    """Hide the experiment and its run, and delete them later; refused as `delete` is."""
    require_deletable(experiment)
    return removals.remove(user=user, obj=experiment)


def delete(*, user: User, experiment: Experiment) -> list[str]:
    """Remove the experiment and its run and, on commit, its folder; refused while the run is queued or running.

    Returns a list that, once the transaction has committed, names the files that the system kept.
    """
    folder = experiment.folder
    with transaction.atomic():
        require_deletable(experiment)
        experiment.delete()
        record("experiment.delete", user=user, obj=experiment)
        return remove_on_commit(folder)


def open_file(experiment: Experiment, path: str) -> IO[bytes]:
    """Open one file of the results; NotFound if the list of files does not name it."""
    if path not in {entry["path"] for entry in files(experiment)}:
        raise NotFoundError
    try:
        content = (experiment.folder / path).open("rb")
    except FileNotFoundError:  # a run in progress drops its older checkpoints
        raise NotFoundError from None
    record("experiment.download", obj=experiment, path=path)
    return content


def archive(experiment: Experiment) -> IO[bytes]:
    """Return all files of the results as a .zip, uncompressed, because weights hardly shrink."""
    record("experiment.download", obj=experiment, path="*")
    packed = tempfile.TemporaryFile()  # noqa: SIM115  the response closes it after sending
    with zipfile.ZipFile(packed, "w") as target:
        for entry in files(experiment):
            with contextlib.suppress(FileNotFoundError):  # dropped by a run in progress
                target.write(experiment.folder / entry["path"], f"{experiment.name}/{entry['path']}")
    packed.seek(0)
    return packed
