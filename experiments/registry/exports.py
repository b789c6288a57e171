"""Model versions in other formats: which there are, ask for one, download it, cancel and delete it."""

import math
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, cast

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import can_manage, require_creator
from accounts.quotas import counts_usage, require_storage_quota
from audit.services import record
from engine.export import Format
from engine.export.formats import formats_of
from engine.export.packages import INSTALL, missing_packages
from engine.task_types import TaskType
from web.errors import ConflictError, InvalidError, NotAllowedError, NotFoundError
from work import queue
from work.models import Status

from ..models import ModelExport, ModelVersion

FORMATS = [str(name) for name in ModelExport.Format.values]  # of all task types


@dataclass(frozen=True, slots=True)
class FormatState:
    """What is known of one format of a version; `export` is None if nobody has asked for it, or if its file is gone."""

    version: ModelVersion
    format: str
    export: ModelExport | None

    @property
    def title(self) -> str:
        return str(ModelExport.Format(self.format).label)

    @property
    def missing(self) -> list[str]:
        """Return the packages that writing it needs and that are not installed."""
        return missing_packages(cast(Format, self.format))

    @property
    def install(self) -> str:
        """Return the command that installs what is missing; empty if nothing is."""
        return INSTALL if self.missing else ""

    @property
    def is_ready(self) -> bool:
        return self.export is not None and self.export.status == Status.SUCCESS

    @property
    def sentence(self) -> str:
        """Return how its answers compare with those of the served model; empty without a finished export."""
        return describe_comparison(self.export.result) if self.export and self.export.result else ""


def describe_comparison(result: dict[str, Any]) -> str:
    """Return the figures of ModelExport.result as sentences."""
    # Rounded so that the sentences stay true: changes up, shares down.
    change = f"{math.ceil(1e4 * result['largest_change']) / 1e4:g}"
    if result.get("mean_change") is not None:
        figures = describe_answers(result, change)
    elif result["equal_answers"] is None:
        sentence = _("Scores of %(texts)s texts changed by at most %(change)s standard deviations.")
        figures = sentence % {"texts": f"{result['texts']:,}", "change": change}
    else:
        sentence = _(
            "%(share).2f%% of %(texts)s texts get the same answer; no probability changed by more than %(change)s."
        )
        share = math.floor(1e4 * result["equal_answers"]) / 1e2
        figures = sentence % {"share": share, "texts": f"{result['texts']:,}", "change": change}
    prompts = result.get("prompts") or {}
    if prompts.get("training") or prompts.get("parts"):
        return f"{figures} {describe_prompts(prompts, result['compared_on'])}"
    if result["compared_on"]:
        return f"{figures} " + _("Compared on held-out rows of %(dataset)s.") % {"dataset": result["compared_on"]}
    return f"{figures} " + _("Compared on random texts, because the rows of the run are gone.")


def describe_prompts(counts: dict[str, int], dataset: str) -> str:
    """Return how many prompts of which kind were compared, where the held-out rows were too few."""
    sentence = _(
        "Compared on %(held_out)s held-out rows of %(dataset)s and, as they are few, on %(training)s training rows and "
        "%(parts)s parts of such prompts."
    )
    shown = {kind: f"{counts.get(kind, 0):,}" for kind in ("held_out", "training", "parts")}
    return sentence % {"dataset": dataset, **shown}


def describe_answers(result: dict[str, Any], largest_change: str) -> str:
    """Return the figures of a language model's export as sentences. largest_change: as text."""
    sentence = _(
        "Log-probabilities of expected tokens changed by %(mean)s on average and by at most %(change)s, on %(texts)s prompts."
    )
    mean = f"{math.ceil(1e4 * result['mean_change']) / 1e4:g}"
    figures = sentence % {"mean": mean, "change": largest_change, "texts": f"{result['texts']:,}"}
    if result["equal_answers"] is None:
        return figures
    share = math.floor(1e3 * result["equal_answers"]) / 10
    return f"{figures} " + _("%(share).1f%% of the answers are the same, word for word.") % {"share": share}


def list_formats(version: ModelVersion) -> list[FormatState]:
    """Return the state of every format of the version's task type."""
    exports = {export.format: export for export in version.exports.select_related("author")}
    formats = formats_of(cast(TaskType, version.task_type))
    return [FormatState(version, name, _unless_lost(exports.get(name))) for name in formats]


def ready_exports(version: ModelVersion) -> list[ModelExport]:
    """Return the exports that can be downloaded."""
    return [state.export for state in list_formats(version) if state.export and state.is_ready]


def get_format(version: ModelVersion, format: str) -> FormatState:
    """Return the state of one format. Raises NotFoundError unless somebody has asked for it."""
    for state in list_formats(version):
        if state.format == format and state.export is not None:
            return state
    raise NotFoundError


def get_export(version: ModelVersion, format: str) -> ModelExport:
    """Return the export to a format. Raises NotFoundError unless somebody has asked for it."""
    export = get_format(version, format).export
    assert export is not None
    return export


def _unless_lost(export: ModelExport | None) -> ModelExport | None:
    """Return an export, or None if its file is gone, as after a backup was restored."""
    if export is None or (export.status == Status.SUCCESS and not export.is_ready):
        return None
    return export


@counts_usage("storage")
def stored_bytes(user: User) -> int:
    """Return the bytes of the exports that a person asked for."""
    return sum(ModelExport.objects.filter(author=user).values_list("size", flat=True))


def request_export(*, user: User, version: ModelVersion, format: str) -> FormatState:
    """Queue an export, or return the one that is there or on its way; one that failed or was cancelled starts again.

    Raises InvalidError for a format that the version's task type does not have, ConflictError if packages are missing, QuotaReachedError.
    """
    require_creator(user)
    formats = formats_of(cast(TaskType, version.task_type))
    if format not in formats:
        message = _("%(version)s can be exported to: %(listed)s. Nothing was queued.")
        raise InvalidError(message % {"version": version, "listed": ", ".join(formats)}, field="format")
    if missing := missing_packages(format):
        message = _(
            "Exporting to %(format)s needs packages that are not installed on the server: %(packages)s. Nothing was "
            "queued. An administrator installs them with “%(command)s”."
        )
        facts = {"format": format, "packages": ", ".join(missing), "command": INSTALL}
        raise ConflictError(message % facts, field="format")
    existing = version.exports.filter(format=format).first()
    if existing and _unless_lost(existing) is None:
        existing.delete()
        existing = None
    if existing and not existing.can_resume:
        return FormatState(version, format, existing)
    require_storage_quota(user)
    return FormatState(version, format, _queue(user, version, format, existing))


def _queue(user: User, version: ModelVersion, format: str, existing: ModelExport | None) -> ModelExport:
    try:
        with transaction.atomic():
            if existing:
                existing.queue_again()
                ModelExport.objects.filter(pk=existing.pk).update(author=user)
                export = existing
            else:
                export = ModelExport.objects.create(version=version, author=user, format=format)
            record("model.export", user=user, obj=version, format=format)
            transaction.on_commit(partial(queue.send, ModelExport, export.pk))
    except IntegrityError:  # somebody else asked for it at the same moment
        return version.exports.get(format=format)
    return export


def require_changeable(user: User, export: ModelExport) -> None:
    """Raise NotAllowedError unless the person asked for the export or manages the model."""
    if export.author_id != user.pk and not can_manage(user, export.version):
        raise NotAllowedError


@transaction.atomic
def cancel_export(*, user: User, export: ModelExport) -> None:
    """Cancel an export: a waiting one ends at once, a running one within a moment. Nothing is stored."""
    require_changeable(user, export)
    export.cancel()
    record("model.export_cancel", user=user, obj=export.version, format=export.format)


@transaction.atomic
def delete_export(*, user: User, export: ModelExport) -> None:
    """Delete an export and its file; a running one must be cancelled first."""
    require_changeable(user, export)
    if not export.finished:
        raise ConflictError(_("This export has not ended. Cancel it first; nothing was deleted."))
    export.remove_files()
    record("model.export_delete", user=user, obj=export.version, format=export.format)
    export.delete()


def open_export(*, user: User, export: ModelExport) -> IO[bytes]:
    """Open the .zip file. Raises NotFoundError while there is none."""
    try:
        if export.status != Status.SUCCESS:
            raise FileNotFoundError
        content = export.path.open("rb")
    except FileNotFoundError:
        raise NotFoundError(_("This export is not ready. Wait until it is done, or export again.")) from None
    record("model.download", user=user, obj=export.version, format=export.format)
    return content


def export_filename(export: ModelExport) -> str:
    return f"{export.version.model.name}-{export.version.number}-{export.format}.zip"
