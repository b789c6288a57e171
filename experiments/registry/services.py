"""Create and change registered models."""

import tempfile
import uuid
import zipfile
from collections.abc import Iterable
from functools import partial
from typing import IO, Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import removals
from accounts.idempotency import create_once, find_created, fingerprint
from accounts.models import Removal, User
from accounts.permissions import can_manage, require_creator, visible
from accounts.quotas import require_storage_quota
from accounts.removals import require_free_name
from audit.services import record
from datasets_app.checks.languages import main_language
from datasets_app.models import Version
from engine.models.recommended import licence_of
from engine.names import name_key, normalise_name
from engine.storage import remove_folder
from web.errors import ConflictError, InvalidError
from web.names import named_alike, require_valid_name
from work.paths import remove_on_commit

from ..margins import margin_in
from ..models import Alias, Experiment, ModelExport, ModelVersion, RegisteredModel
from ..names import ALIAS_NAME, RESERVED_MODELS
from ..services import NameTakenError
from ..task_types import score_of
from . import card, files
from .labels import label_set

CARD_LIMIT = 20_000  # characters
KEPT_METRICS = ("task", "eval", "test", "baseline", "train", "system", "thresholds")
KEPT_CALIBRATION = ("temperature", "ece_before", "ece_after", "rows", "entities", "confident_from")
LANGUAGE_SAMPLE = 60  # rows that the language of a dataset is detected from


def register(
    *,
    user: User,
    experiment: Experiment,
    name: str,
    summary: str = "",
    note: str = "",
    checkpoint: str = "best",
    idempotency_key: str | None = None,
) -> ModelVersion:
    """Register the next version of a model from a finished experiment that the person manages.

    The files are complete before the database row exists, and removed if it can't be written.
    """
    require_creator(user)
    request_hash = fingerprint("model", experiment.name, name, summary, note, checkpoint)
    if earlier := find_created(user, idempotency_key, request_hash, ModelVersion.objects.all()):
        return earlier
    check_source(user, experiment, checkpoint)
    target_model(user, name)  # refuses a name that cannot be used, before files are copied
    require_storage_quota(user)
    facts = version_facts(experiment, checkpoint)
    version = ModelVersion(author=user, key=uuid.uuid4(), note=note[:300], checkpoint=checkpoint, **facts)
    version.size = files.store_model_files(experiment, checkpoint, version.folder)
    try:
        create = partial(insert_version, version, user, name, summary)
        registered = create_once(user, idempotency_key, request_hash, ModelVersion.objects.all(), create)
    except BaseException:  # also Ctrl-C: no row names the folder, so nothing else would ever remove it
        remove_folder(version.folder)
        raise
    if registered != version:  # the same request was handled at the same moment
        remove_folder(version.folder)
    return registered


def check_source(user: User, experiment: Experiment, checkpoint: str) -> None:
    """Raise Conflict or Invalid unless the person can register this checkpoint of the experiment."""
    if not can_manage(user, experiment):
        raise ConflictError(_("You can only register the model of an experiment that you manage."), field="experiment")
    if not experiment.is_ready:
        message = _("This run has left no model yet. Wait until it is done, or choose another.")
        raise ConflictError(message, field="experiment")
    available = files.checkpoints(experiment)
    if checkpoint != "best" and checkpoint not in available:
        listed = ", ".join({"best": None, **available})
        raise InvalidError(_("checkpoint is one of: %(listed)s.") % {"listed": listed}, field="checkpoint")


def target_model(user: User, name: str) -> RegisteredModel | None:
    """Return the person's model of this name, or None if there is none; InvalidError or NameTakenError if it cannot be used."""
    require_valid_name(name, field="name", reserved=RESERVED_MODELS)
    model = RegisteredModel.objects.filter(named_alike(name)).first()
    if model:
        if model.name != normalise_name(name) or not can_manage(user, model):
            raise NameTakenError(_("This name is taken by another model. Choose another."), field="name")
        require_free_name(model)
        return model
    # A prediction by name prefers a model to an experiment, so nobody may hide somebody else's experiment.
    experiments = Experiment.objects.filter(named_alike(name))
    if experiments.exists() and not visible(user, experiments, manage=True).exists():
        raise NameTakenError(_("This name is taken by somebody else's experiment. Choose another."), field="name")
    return None


def version_facts(experiment: Experiment, checkpoint: str) -> dict[str, Any]:
    """Return the fields of a version that come from its run and that nobody edits."""
    data = experiment.version
    metrics = {name: value for name, value in experiment.metrics.items() if name in KEPT_METRICS}
    calibration = experiment.metrics.get("calibration")
    if calibration:
        metrics["calibration"] = {name: calibration[name] for name in KEPT_CALIBRATION if name in calibration}
    if checkpoint != "best":
        metrics = card.metrics_at(experiment, checkpoint) | {"system": metrics.get("system", {})}
    findings = data.findings.all() if data else []
    task = getattr(experiment, "task", None)
    return {
        "experiment": experiment,
        "experiment_name": experiment.name,
        "dataset_version": data,
        "dataset_name": experiment.dataset_name,
        "dataset_hash": experiment.dataset_hash,
        "base_model": experiment.base_model,
        # People fill in what is empty.
        "licence": {"base_model": licence_of(experiment.base_model), "dataset": ""},
        "language": language_of(data) if data else "",
        "labels": experiment.labels,
        "config": experiment.config,
        "metrics": metrics,
        "limits": [{"code": f.code, "severity": f.severity, "count": f.count, "message": f.message} for f in findings],
        "machine": metrics.get("system", {}),
        "trained_at": task.ended_at if task else None,
        "task_type": experiment.task_type,
        "score": score_of(metrics),
        "accuracy": metrics["eval"].get("accuracy"),
        "macro_f1": metrics["eval"].get("macro_f1"),
    }


def language_of(data: Version) -> str:
    """Return the English name of the language of most rows; empty if it can't be told.

    Judged by at most LANGUAGE_SAMPLE rows, taken at equal distances, because data may be sorted.
    """
    import polars as pl  # heavy: most pages need none of it

    every = max(1, data.rows // LANGUAGE_SAMPLE)
    rows = pl.scan_parquet(data.path).select("text").gather_every(every).head(LANGUAGE_SAMPLE).collect()
    return main_language(rows["text"].to_list())


@transaction.atomic
def insert_version(version: ModelVersion, user: User, name: str, summary: str) -> ModelVersion:
    """Store a version whose files are complete, and its model if this is the first one."""
    model = target_model(user, name)
    if model is None:
        try:
            with transaction.atomic():  # a savepoint, so that this transaction outlives the error below
                model = RegisteredModel.objects.create(name=name, owner=user, updated_at=timezone.now())
        except IntegrityError:
            raise NameTakenError(_("This name has just been taken. Choose another."), field="name") from None
    # Locked, so that two registrations at once do not take the same number.
    model = RegisteredModel.objects.select_for_update().get(pk=model.pk)
    previous = ModelVersion.with_removed.filter(model=model).first()  # the number of a removed version is still taken
    version.model = model
    version.number = previous.number + 1 if previous else 1
    version.card = previous.card if previous else card.first_text(version)
    version.save(force_insert=True)
    model.summary = summary.strip()[:300] or model.summary
    update_newest(model, version)
    record("model.register", user=user, obj=version, experiment=version.experiment_name, checkpoint=version.checkpoint)
    return version


def update_newest(model: RegisteredModel, newest: ModelVersion) -> None:
    """Copy to the model the fields of its newest version that the list is searched and sorted by."""
    model.latest = newest
    model.updated_at = newest.created_at
    model.language = newest.language
    model.base_model = newest.base_model
    model.label_set = label_set(newest.labels)
    model.task_type = newest.task_type
    model.score = newest.score
    model.score_margin = margin_in(newest.metrics, newest.score_name)
    model.accuracy = newest.accuracy
    model.macro_f1 = newest.macro_f1
    texts = [model.name, model.summary, newest.base_model, newest.dataset_name, newest.language, *newest.labels]
    model.words = name_key(" ".join(texts))[:4000]  # so that a search finds them in any case and width
    model.save()


@transaction.atomic
def describe(
    *,
    user: User,
    version: ModelVersion,
    summary: str | None = None,
    text: str | None = None,
    licence: dict[str, str] | None = None,
) -> None:
    """Change what people write about a version: summary, card, licences. What is None stays as it is."""
    if text is not None and len(text) > CARD_LIMIT:
        raise InvalidError(_("A card has at most %(limit)d characters.") % {"limit": CARD_LIMIT}, field="card")
    model = RegisteredModel.objects.select_for_update().get(pk=version.model_id)
    if text is not None:
        version.card = text.replace("\r\n", "\n").replace("\x00", "")  # PostgreSQL stores no NUL
    if licence is not None:
        version.licence = {kind: " ".join(licence.get(kind, "").split())[:80] for kind in card.LICENCES}
    version.save(update_fields=["card", "licence"])
    if summary is not None:
        model.summary = " ".join(summary.split())[:300]
        update_newest(model, model.latest or version)
    record("model.describe", user=user, obj=version)


@transaction.atomic
def set_alias(*, user: User, version: ModelVersion, name: str) -> Alias:
    """Point `model@name` at this version, whatever it pointed at before."""
    if not ALIAS_NAME.fullmatch(name):
        message = _(
            "An alias has 1 to 40 letters from A to Z, digits, hyphens and underscores. It starts with a letter."
        )
        raise InvalidError(message, field="alias")
    alias, _new = Alias.objects.update_or_create(model=version.model, name=name, defaults={"version": version})
    record("model.alias", user=user, obj=version, alias=name)
    return alias


@transaction.atomic
def remove_alias(*, user: User, model: RegisteredModel, name: str) -> None:
    deleted, _by_class = Alias.objects.filter(model=model, name=name).delete()
    if deleted:
        record("model.alias_end", user=user, obj=model, alias=name)


def archive(*, user: User, version: ModelVersion) -> IO[bytes]:
    """Return the version as a .zip: adapter, tokenizer, and the card as README.md."""
    packed = tempfile.TemporaryFile()  # noqa: SIM115  the response closes it after sending
    with zipfile.ZipFile(packed, "w") as target:
        for path in sorted(version.folder.iterdir()):
            target.write(path, f"{version.model.name}/{path.name}")
        target.writestr(f"{version.model.name}/README.md", card.readme(version))
    packed.seek(0)
    record("model.download", user=user, obj=version)
    return packed


def carry_out_removal(user: User, model: RegisteredModel) -> None:
    """Delete a model that was removed on a page a while ago. `RegisteredModel.removed_by` names this function."""
    delete(user=user, model=model)


def delete(*, user: User, model: RegisteredModel) -> None:
    """Delete a model with all its versions and files; the experiments that it came from stay."""
    with transaction.atomic():
        versions = ModelVersion.with_removed.filter(model=model)
        folders = [version.folder for version in versions]
        remove_export_files(versions)
        record("model.delete", user=user, obj=model, versions=len(folders))
        RegisteredModel.objects.filter(pk=model.pk).update(latest=None)
        model.delete()
        for folder in folders:
            remove_on_commit(folder)


def remove_export_files(versions: Iterable[ModelVersion]) -> None:
    """Remove the files of all exports of versions that are being deleted, on commit."""
    for export in ModelExport.objects.filter(version__in=versions):
        export.remove_files()


@transaction.atomic
def remove_version(*, user: User, version: ModelVersion) -> Removal | None:
    """Hide one version, so that it can be brought back for a while; Conflict for the only one of a model."""
    model = RegisteredModel.objects.select_for_update().get(pk=version.model_id)
    newest = newest_beside(model, version)
    removal = removals.remove(user=user, obj=version)
    update_newest(model, newest)
    return removal


def restore_version(version: ModelVersion) -> None:
    """Let a version that was brought back be its model's newest again. `ModelVersion.restored_by` names this function."""
    model = RegisteredModel.objects.select_for_update().get(pk=version.model_id)
    update_newest(model, model.versions.earliest("-number"))


def carry_out_version_removal(user: User, version: ModelVersion) -> None:
    """Delete a version that was removed on a page a while ago. `ModelVersion.removed_by` names this function."""
    delete_version(user=user, version=version)


@transaction.atomic
def delete_version(*, user: User, version: ModelVersion) -> None:
    """Delete one version; Conflict for the only one of a model."""
    model = RegisteredModel.objects.select_for_update().get(pk=version.model_id)
    newest = newest_beside(model, version)
    folder = version.folder
    remove_export_files([version])
    record("model.delete", user=user, obj=version)
    update_newest(model, newest)
    version.delete()
    remove_on_commit(folder)


def newest_beside(model: RegisteredModel, version: ModelVersion) -> ModelVersion:
    """Return the newest other version of a model; Conflict if there is none."""
    newest = model.versions.exclude(pk=version.pk).first()
    if newest is None:
        raise ConflictError(_("This is the model's only version. Delete the model instead; nothing was changed."))
    return newest
