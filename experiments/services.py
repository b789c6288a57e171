"""Everything that changes an experiment."""

import contextlib
import errno
import json
import os
import tempfile
import zipfile
from typing import IO, Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import visible
from audit.services import record
from datasets_app.models import Version
from web.errors import Conflict, Invalid, LorasiteError, NotFound
from work.paths import remove_on_commit

from .models import Experiment, RegisteredModel
from .selectors import files, free_name

RESERVED = ("mine", "compare", "delete")  # addresses of pages and of the API
NEEDED = ("adapter_config.json", "adapter_model.safetensors", "lorasite.json")


class NameTaken(Conflict):
    code = "name_taken"


class ModelMissing(LorasiteError):
    code, status = "model_missing", 500


@transaction.atomic
def create(
    *, owner: User, name: str, config: dict[str, Any], version: Version | None, dataset_name: str, base_model: str
) -> Experiment:
    """The row that a run fills; its name is taken once and for all people."""
    check_name(name)
    _refuse_name_of_a_model(owner, name)
    try:
        with transaction.atomic():
            return Experiment.objects.create(
                owner=owner,
                name=name,
                config=config,
                version=version,
                dataset_name=dataset_name,
                dataset_hash=version.hash if version else "",
                base_model=base_model,
            )
    except IntegrityError:
        raise name_taken(name) from None


def check_name(name: str) -> None:
    """Invalid or NameTaken unless an experiment may have this name."""
    if name.lower() in RESERVED:
        raise Invalid(_("An experiment can't be called %(name)s.") % {"name": name}, field="experiment_name")
    if Experiment.objects.filter(name__iexact=name).exists():  # on a Mac, Run and run would be one folder
        raise name_taken(name)


def _refuse_name_of_a_model(owner: User, name: str) -> None:
    """Who asks by a name means the registered model of it, so a run of that name would be hidden by somebody else's model."""
    same = RegisteredModel.objects.filter(name__iexact=name)
    if same.exists() and not visible(owner, same, manage=True).exists():
        raise name_taken(name)


def name_taken(name: str) -> NameTaken:
    free = free_name(name)
    message = _("There is an experiment called %(name)s already. %(free)s is free.") % {"name": name, "free": free}
    return NameTaken(message, field="experiment_name", suggestion=free)


def record_result(*, experiment: Experiment, metrics: dict[str, Any]) -> None:
    """Take over what a run measured, once the model's files are really there."""
    check_model(experiment)
    found = metrics["eval"]
    experiment.metrics = metrics
    experiment.accuracy, experiment.macro_f1 = found["accuracy"], found["macro_f1"]
    experiment.eval_loss = found["loss"]
    experiment.tokens_per_second = metrics["train"]["tokens_per_second"]
    experiment.runtime_s = metrics["train"]["runtime_s"]
    experiment.save(update_fields=["metrics", "accuracy", "macro_f1", "eval_loss", "tokens_per_second", "runtime_s"])


def check_model(experiment: Experiment) -> None:
    """Read the adapter's header and configuration; ModelMissing when the folder could not be served."""
    from safetensors import SafetensorError, safe_open

    folder = experiment.final_model
    try:
        for name in NEEDED[::2]:
            json.loads((folder / name).read_bytes())
        with safe_open(folder / NEEDED[1], framework="numpy") as tensors:
            readable = bool(tensors.keys())
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelMissing(_("The run ended, but its model can't be read: %s") % error) from None
    if not readable:
        raise ModelMissing(_("The run ended, but its adapter holds no weights."))


def delete(*, user: User, experiment: Experiment) -> list[str]:
    """Remove the experiment and its run and, on commit, its folder; refused while the run is queued or running.

    Returns a list that, once the transaction has committed, names the files that the system kept.
    """
    folder = experiment.folder
    with transaction.atomic():
        _refuse_unless_ended(experiment)
        if folder.exists() and not os.access(folder.parent, os.W_OK):
            reason = os.strerror(errno.EACCES)
            raise Conflict(_("Its folder can't be removed (%s), so nothing was deleted.") % reason)
        experiment.delete()
        record("experiment.delete", user=user, obj=experiment)
        return remove_on_commit(folder)


def _refuse_unless_ended(experiment: Experiment) -> None:
    """Lock the run's task while the experiment is deleted, so that nobody resumes it meanwhile."""
    task = getattr(experiment, "task", None)
    if task is None:
        return
    task.refresh_from_db(from_queryset=type(task).objects.select_for_update())
    if not task.finished:
        raise Conflict(_("This run has not ended. Cancel it first; nothing was deleted."))


def opened(experiment: Experiment, path: str) -> IO[bytes]:
    """One file of the results; NotFound for what the list of files does not name."""
    if path not in {entry["path"] for entry in files(experiment)}:
        raise NotFound
    try:
        found = (experiment.folder / path).open("rb")
    except FileNotFoundError:  # a run that goes on drops its older checkpoints
        raise NotFound from None
    record("experiment.download", obj=experiment, path=path)
    return found


def archive(experiment: Experiment) -> IO[bytes]:
    """All files of the results in one .zip, stored as they are: weights hardly shrink."""
    record("experiment.download", obj=experiment, path="*")
    packed = tempfile.TemporaryFile()  # noqa: SIM115  the answer that sends it closes it
    with zipfile.ZipFile(packed, "w") as target:
        for entry in files(experiment):
            with contextlib.suppress(FileNotFoundError):  # dropped by a run that goes on
                target.write(experiment.folder / entry["path"], f"{experiment.name}/{entry['path']}")
    packed.seek(0)
    return packed
