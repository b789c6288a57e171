"""Everything that changes registered models."""

import re
import tempfile
import uuid
import zipfile
from typing import IO, Any, cast

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.idempotency import fingerprint, made_before, once
from accounts.models import User
from accounts.permissions import require_creator, visible
from accounts.quotas import require_storage
from audit.services import record
from datasets_app.checks.languages import spoken
from datasets_app.models import Version
from engine.storage import remove_folder
from web.errors import Conflict, Invalid
from work.paths import remove_on_commit

from ..models import Alias, Experiment, ModelVersion, RegisteredModel
from ..services import NameTaken
from . import card, files
from .labels import label_set

NAME = re.compile(r"[A-Za-z0-9](\.?[A-Za-z0-9_-]){0,79}")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
RESERVED = ("register", "recommend")  # addresses of pages and of the API
CARD_LIMIT = 20_000  # characters
KEPT_METRICS = ("eval", "test", "baseline", "train", "system")
SAMPLE = 60  # rows that tell a dataset's language


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
    """The next version of a model, from a finished experiment that the person manages.

    Its files are in place, whole, before the database knows of it; what is refused leaves nothing behind.
    """
    require_creator(user)
    mark = fingerprint("model", experiment.name, name, summary, note, checkpoint)
    if known := made_before(user, idempotency_key, mark, ModelVersion.objects.all()):
        return cast(ModelVersion, known)
    _check_source(user, experiment, checkpoint)
    check_name(user, name)
    require_storage(user)
    version = _on_disk(user, experiment, checkpoint, note)
    try:
        with once(user, idempotency_key, mark, ModelVersion.objects.all()) as found:
            found.made = found.made or _insert(version, user, name, summary)
    except BaseException:
        remove_folder(version.folder)
        raise
    if found.made != version:  # the same request was here at the same moment
        remove_folder(version.folder)
    return cast(ModelVersion, found.made)


def _on_disk(user: User, experiment: Experiment, checkpoint: str, note: str) -> ModelVersion:
    """A version with its files, which the database does not know yet."""
    facts = _facts(experiment, checkpoint)
    version = ModelVersion(author=user, key=uuid.uuid4(), note=note[:300], checkpoint=checkpoint, **facts)
    version.size = files.keep(experiment, checkpoint, version.folder)
    return version


def _check_source(user: User, experiment: Experiment, checkpoint: str) -> None:
    if not visible(user, Experiment.objects.filter(pk=experiment.pk), manage=True).exists():
        raise Conflict(_("Only who manages an experiment can register its model."), field="experiment")
    if not experiment.is_ready:
        raise Conflict(
            _("This run has left no model yet. Wait until it is done, or choose another."), field="experiment"
        )
    there = files.checkpoints(experiment)
    if checkpoint != "best" and checkpoint not in there:
        listed = ", ".join({"best": None, **there})
        raise Invalid(_("checkpoint is one of: %(listed)s.") % {"listed": listed}, field="checkpoint")


def check_name(user: User, name: str) -> None:
    """Invalid or NameTaken where the person can't register a model of this name."""
    _target(user, name)


def _target(user: User, name: str) -> RegisteredModel | None:
    """The model that the name already means, if any; refused where the name is somebody else's, of a run too."""
    if not NAME.fullmatch(name) or name.lower() in RESERVED:
        message = _(
            "A model's name has 1 to 80 letters, digits, dots, hyphens and underscores, starts with a letter or digit, and is "
            "none of: %(reserved)s."
        )
        raise Invalid(message % {"reserved": ", ".join(RESERVED)}, field="name")
    found = RegisteredModel.objects.filter(name__iexact=name).first()
    if found and (found.name != name or not manages(user, found)):
        raise NameTaken(_("This name is taken by another model. Choose another."), field="name")
    run = Experiment.objects.filter(
        name__iexact=name
    )  # a model answers before a run of its name: nobody takes another's
    if not found and run.exists() and not visible(user, run, manage=True).exists():
        raise NameTaken(_("This name is taken by somebody else's experiment. Choose another."), field="name")
    return found


def manages(user: User, model: RegisteredModel) -> bool:
    return visible(user, RegisteredModel.objects.filter(pk=model.pk), manage=True).exists()


def _facts(experiment: Experiment, checkpoint: str) -> dict[str, Any]:
    """What the card tells and nobody edits."""
    data, metrics = experiment.version, {k: v for k, v in experiment.metrics.items() if k in KEPT_METRICS}
    if checkpoint != "best":
        metrics = card.metrics_at(experiment, checkpoint) | {"system": metrics.get("system", {})}
    task = getattr(experiment, "task", None)
    return {
        "experiment": experiment,
        "experiment_name": experiment.name,
        "dataset_version": data,
        "dataset_name": experiment.dataset_name,
        "dataset_hash": experiment.dataset_hash,
        "base_model": experiment.base_model,
        "licence": card.known_licences(experiment),
        "language": language_of(data) if data else "",
        "labels": experiment.labels,
        "config": experiment.config,
        "metrics": metrics,
        "limits": card.limits(data),
        "machine": metrics.get("system", {}),
        "trained_at": task.ended_at if task else None,
        "accuracy": metrics["eval"]["accuracy"],
        "macro_f1": metrics["eval"]["macro_f1"],
    }


def language_of(data: Version) -> str:
    """The language of most of some rows."""
    import polars as pl

    rows = pl.scan_parquet(data.path).select("text").gather_every(max(1, data.rows // SAMPLE)).head(SAMPLE).collect()
    return spoken(rows["text"].to_list())


@transaction.atomic
def _insert(version: ModelVersion, user: User, name: str, summary: str) -> ModelVersion:
    model = _target(user, name)
    try:
        with transaction.atomic():
            model = model or RegisteredModel.objects.create(name=name, owner=user, updated_at=timezone.now())
    except IntegrityError:
        raise NameTaken(_("This name has just been taken. Choose another."), field="name") from None
    model = RegisteredModel.objects.select_for_update().get(pk=model.pk)  # one next number at a time
    newest = model.versions.first()
    version.model, version.number = model, newest.number + 1 if newest else 1
    version.card = newest.card if newest else card.first_text(version)
    version.save(force_insert=True)
    model.summary = summary.strip()[:300] or model.summary
    _take_over(model, version)
    record("model.register", user=user, obj=version, experiment=version.experiment_name, checkpoint=version.checkpoint)
    return version


def _take_over(model: RegisteredModel, newest: ModelVersion) -> None:
    """What the list is searched and sorted by."""
    model.latest, model.updated_at = newest, newest.created_at
    model.language, model.base_model = newest.language, newest.base_model
    model.label_set, model.accuracy, model.macro_f1 = label_set(newest.labels), newest.accuracy, newest.macro_f1
    said = [model.name, model.summary, newest.base_model, newest.dataset_name, newest.language, *newest.labels]
    model.words = " ".join(said).lower()[:4000]
    model.save()


@transaction.atomic
def describe(
    *, user: User, version: ModelVersion, summary: str | None = None, text: str | None = None,
    licence: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """Change what people have written about a version: summary, card, licences. What is None stays."""
    if text is not None and len(text) > CARD_LIMIT:
        raise Invalid(_("A card has at most %(limit)d characters.") % {"limit": CARD_LIMIT}, field="card")
    model = RegisteredModel.objects.select_for_update().get(pk=version.model_id)
    version.card = version.card if text is None else text.replace("\r\n", "\n").replace("\x00", "")
    if licence is not None:
        version.licence = {kind: " ".join(licence.get(kind, "").split())[:80] for kind in card.LICENCES}
    version.save(update_fields=["card", "licence"])
    if summary is not None:
        model.summary = " ".join(summary.split())[:300]
        _take_over(model, model.latest or version)
    record("model.describe", user=user, obj=version)


@transaction.atomic
def set_alias(*, user: User, version: ModelVersion, name: str) -> Alias:
    """Let `model@name` mean this version from here on, whatever it meant before."""
    if not ALIAS.fullmatch(name):
        raise Invalid(
            _("An alias has 1 to 40 letters, digits, hyphens and underscores and starts with a letter."), field="alias"
        )
    alias, _new = Alias.objects.update_or_create(model=version.model, name=name, defaults={"version": version})
    record("model.alias", user=user, obj=version, alias=name)
    return alias


@transaction.atomic
def remove_alias(*, user: User, model: RegisteredModel, name: str) -> None:
    if Alias.objects.filter(model=model, name=name).delete()[0]:
        record("model.alias_end", user=user, obj=model, alias=name)


def archive(*, user: User, version: ModelVersion) -> IO[bytes]:
    """The version as one .zip: adapter, tokenizer, and the card as README.md."""
    packed = tempfile.TemporaryFile()  # noqa: SIM115  the answer that sends it closes it
    with zipfile.ZipFile(packed, "w") as target:
        for path in sorted(version.folder.iterdir()):
            target.write(path, f"{version.model.name}/{path.name}")
        target.writestr(f"{version.model.name}/README.md", card.readme(version))
    packed.seek(0)
    record("model.download", user=user, obj=version)
    return packed


def delete(*, user: User, model: RegisteredModel) -> None:
    """Remove a model with all its versions and files; the experiments that it came from stay."""
    with transaction.atomic():
        folders = [version.folder for version in model.versions.all()]
        record("model.delete", user=user, obj=model, versions=len(folders))
        RegisteredModel.objects.filter(pk=model.pk).update(latest=None)
        model.delete()
        for folder in folders:
            remove_on_commit(folder)


def delete_version(*, user: User, version: ModelVersion) -> None:
    """Remove one version; the last one of a model can't go without the model."""
    with transaction.atomic():
        model = RegisteredModel.objects.select_for_update().get(pk=version.model_id)
        rest = model.versions.exclude(pk=version.pk).first()
        if rest is None:
            raise Conflict(_("This is the model's only version. Delete the model instead; nothing was changed."))
        folder = version.folder
        record("model.delete", user=user, obj=version)
        _take_over(model, rest)
        version.delete()
        remove_on_commit(folder)
