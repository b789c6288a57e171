"""Everything that changes datasets: a new version from a file, work for the queue, deletion, the samples."""

import hashlib
import logging
import re
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import override

from accounts.idempotency import KeyUsed, fingerprint, made_before, once
from accounts.models import Role, User
from accounts.permissions import require_creator, share, visible
from accounts.quotas import require_storage
from audit.services import record
from datasets_app.reading.uploads import Pending, discard, pending_for
from engine.config import SAMPLE_MODEL
from web.disk import require_room
from web.errors import Conflict, Invalid
from work import queue
from work.models import Status
from work.paths import remove_on_commit

from . import wording
from .models import BrokenLines, Dataset, DataTask, Finding, Suspect, Version

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from datasets_app.checks.findings import Found
    from datasets_app.reading.columns import Rows
    from datasets_app.reading.table import Table

    from .jobs import Told

log = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_RESERVED = {"new", "tasks"}  # addresses of the pages
AT_ONCE = 512 * 1024  # bytes of an unpacked file that are checked within about a second; more goes into the queue
_AT_A_TIME = 2  # files that one web server checks at once; the threads that are left answer everybody else
_WAIT_SECONDS = 0.5  # for a place among them; then the queue checks the file
_places = threading.BoundedSemaphore(_AT_A_TIME)


@dataclass
class Prepared:
    """A version whose rows are on disk and which the database does not know yet."""

    user: User
    name: str
    version: Version
    found: "list[Found]"
    description: str = ""
    broken: str = ""  # lines that could not be read


def silent(stage: str, done: int = 0, total: int = 0) -> None:
    """Nobody waits to hear how far a short piece of work is."""


def create_version(
    *, user: User, name: str, file: Path, filename: str, idempotency_key: str | None = None, **options: Any
) -> Version:
    """Read, check and store a file as a new dataset, or as the next version of one that the person manages.

    The rows are on disk, whole, before the database knows of them; a refused file leaves nothing behind.
    """
    how = {key: options.pop(key) for key in ("limit", "seconds") if key in options}
    mark, versions = _mark(file, name, options) if idempotency_key else "", Version.objects.all()
    if known := made_before(user, idempotency_key, mark, versions):
        return cast(Version, known)
    prepared = prepare_file(user=user, name=name, file=file, filename=filename, **how, **options)
    with once(user, idempotency_key, mark, versions) as found:
        found.made = found.made or _insert(prepared)
    return _on_disk(found.made)


def store_upload(
    *, user: User, name: str, kept: Pending, idempotency_key: str | None = None, **options: Any
) -> Version | DataTask:
    """Store an upload at once where it is small, unpacked and counted; else let the queue do it, and give the task.

    The queue also gets it while others are being stored. An upload that is refused stays, to be sent again otherwise.
    """
    from datasets_app.reading import sandbox
    from datasets_app.reading.archives import TooLarge

    check_name(user, name)
    asked: dict[str, Any] = {"user": user, "name": name, "idempotency_key": idempotency_key, **options}
    mark = _mark(kept.file, name, options) if idempotency_key else ""
    if known := _queued_before(user, idempotency_key, mark):
        return known
    if kept.file.stat().st_size <= AT_ONCE and _places.acquire(timeout=_WAIT_SECONDS):
        try:
            quick: dict[str, Any] = {"limit": AT_ONCE, "seconds": sandbox.QUICK_SECONDS}
            version = create_version(file=kept.file, filename=kept.filename, **quick, **asked)
            discard(kept)
            return version
        except (TooLarge, sandbox.ReadersBusy) as error:
            log.info("The data worker reads the upload for %s: %s", name, error)
        finally:
            _places.release()
    return submit_upload(kept=kept, **asked)


def _queued_before(user: User, key: str | None, mark: str) -> DataTask | None:
    """The task that an earlier request with this key made."""
    try:
        return cast(DataTask | None, made_before(user, key, mark, DataTask.objects.all()))
    except KeyUsed:
        return None  # made a version, or asked for something else: `create_version` tells


def prepare_file(
    *,
    user: User,
    name: str,
    file: Path,
    filename: str,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    note: str = "",
    description: str = "",
    limit: int | None = None,
    seconds: float | None = None,
    told: "Callable[..., None]" = silent,
) -> Prepared:
    """All of `create_version` but what the database sees. `told` hears of each stage.

    `limit`: bytes of the unpacked file; UPLOAD_LIMIT_MB where left out. `seconds`: see `sandbox.read`.
    """
    require_creator(user)
    _target(user, name)
    require_storage(user, file.stat().st_size)
    told("reading")
    table, rows = read_rows(
        file,
        filename,
        text_column,
        label_column,
        encoding=encoding,
        delimiter=delimiter,
        limit=limit or settings.UPLOAD_LIMIT,
        seconds=seconds,
        waiting=partial(told, "reading"),
    )
    source, broken = _source(table, rows, filename), table.broken_text
    del table  # its rows are in `rows` now, and a million of them need not be there twice
    prepared = prepare(user, name, rows, source=source, note=note, description=description, told=told)
    prepared.broken = broken
    return prepared


def read_rows(
    file: Path, filename: str, text_column: str | None, label_column: str | None, **way: Any
) -> "tuple[Table, Rows]":
    """Read a file in a process of its own, and choose its columns; `way` goes to `sandbox.read`.

    Only the chosen columns of a large file are read whole.
    """
    from datasets_app.reading import columns, sandbox

    table = sandbox.read(file, filename, head=True, **way)
    chosen = columns.choose(table, text_column, label_column)
    if not table.complete:
        wanted = [name for name in (chosen.text, chosen.label, chosen.split) if name]
        table = sandbox.read(file, filename, only=wanted, **way)
    rows = columns.rows_of(table, chosen)
    columns.refuse_untrainable(rows)
    return table, rows


def submit(*, user: User, kind: DataTask.Kind, name: str, version: Version | None = None, **arguments: Any) -> DataTask:
    """Put work on data into the queue; one that does the same and has not ended yet is given instead."""
    require_creator(user)
    require_room()
    _target(user, name)
    same = DataTask.objects.filter(kind=kind, name=name, version=version, arguments=arguments, owner=user)
    waiting = same.filter(status__in=[Status.PENDING, Status.STARTED]).first()
    return waiting or _queue(user, kind, name, version, arguments)


@transaction.atomic
def _queue(user: User, kind: str, name: str, version: Version | None, arguments: dict[str, Any]) -> DataTask:
    task = DataTask.objects.create(owner=user, kind=kind, name=name, version=version, arguments=arguments)
    record(f"dataset.{kind}.submit", user=user, obj=task, task_id=str(task.pk))
    transaction.on_commit(partial(queue.send, DataTask, task.pk))
    return task


@transaction.atomic
def cancel(*, user: User, task: DataTask) -> DataTask:
    """Waiting work ends at once, work that is going on within a moment; nothing is stored."""
    task.cancel()
    record(f"dataset.{task.kind}.cancel", user=user, obj=task, task_id=str(task.pk))
    return task


def count_tokens(*, user: User, version: Version, model: str) -> DataTask | None:
    """Count at once where that takes about a second (None), else by a task. Raises BaseModelUnavailable."""
    from datasets_app.checks import text_statistics

    if version.rows > text_statistics.AT_ONCE:
        kind = DataTask.Kind.TOKENS
        return submit(user=user, kind=kind, name=version.dataset.name, version=version, base_model=model)
    lengths = text_statistics.count_tokens(version, model)
    with transaction.atomic():
        text_statistics.keep_tokens(version, model, lengths)
        record("dataset.tokens", user=user, obj=version, base_model=model)
    return None


@transaction.atomic
def decide(*, user: User, suspect: Suspect, label: str | None) -> Suspect:
    """What a person says to a suspect: the label that is right (its own: it stays), "" to drop the row, None to undo."""
    if label and label not in suspect.version.labels:
        raise Invalid(_("There is no label “%(label)s” in this version.") % {"label": label[:80]}, field="label")
    suspect.decision, suspect.decided_by = label, user if label is not None else None
    suspect.save(update_fields=["decision", "decided_by"])
    record("dataset.decide", user=user, obj=suspect.version, row=suspect.row, was=suspect.label, label=label)
    return suspect


def store_pending(task: DataTask, told: "Told") -> "Callable[[], dict[str, Any]]":
    """The work of a task that stores an upload."""
    options = dict(task.arguments)
    kept = pending_for(task.owner, options.pop("token"))
    prepared = prepare_file(
        user=task.owner, name=task.name, file=kept.file, filename=kept.filename, told=told, **options
    )
    return partial(_store_and_discard, prepared, kept)


def stored(prepared: Prepared) -> dict[str, Any]:
    """Insert, and tell what there is now: the result of a task."""
    version = insert(prepared)
    return {"name": version.dataset.name, "version": version.number, "rows": version.rows}


def _store_and_discard(prepared: Prepared, kept: Pending) -> dict[str, Any]:
    transaction.on_commit(partial(discard, kept))
    return stored(prepared)


def submit_upload(
    *, user: User, name: str, kept: Pending, idempotency_key: str | None = None, **options: Any
) -> DataTask:
    """Let the queue read, check and store a file that was put aside."""
    mark = _mark(kept.file, name, options) if idempotency_key else ""
    with once(user, idempotency_key, mark, DataTask.objects.all()) as found:
        found.made = found.made or submit(user=user, kind=DataTask.Kind.STORE, name=name, token=kept.token, **options)
        return cast(DataTask, found.made)


def _mark(file: Path, *asked: Any) -> str:
    with file.open("rb") as content:
        return fingerprint("dataset", hashlib.file_digest(content, "sha256").hexdigest(), *asked)


def check_name(user: User, name: str) -> None:
    """Invalid or Conflict where the person cannot store a dataset of this name."""
    require_creator(user)
    _target(user, name)


def _target(user: User, name: str) -> Dataset | None:
    """The dataset that the name already means, if any."""
    if not NAME.fullmatch(name) or name.lower() in _RESERVED:
        message = _(
            "A dataset's name has 1 to 80 letters, digits, dots, hyphens and underscores, starts with a letter or "
            "digit, and is not “new”."
        )
        raise Invalid(message, field="name")
    found = Dataset.objects.filter(name=name).first()
    if found and not visible(user, Dataset.objects.filter(pk=found.pk), manage=True).exists():
        raise Conflict(_("This name is taken by somebody else's dataset. Choose another."), field="name")
    return found


def _source(table: "Table", rows: "Rows", filename: str) -> dict[str, Any]:
    return {
        "filename": Path(filename).name.replace("\x00", "")[:200],
        "kind": table.kind,
        "encoding": table.encoding,
        "delimiter": table.delimiter,
        "text_column": rows.chosen.text,
        "label_column": rows.chosen.label,
        "split_column": rows.chosen.split,
        "broken_lines": table.broken_lines,
        "broken_examples": table.broken_examples,
        "skipped": rows.skipped,
    }


def prepare(
    user: User,
    name: str,
    rows: "Rows",
    *,
    source: dict[str, Any],
    note: str = "",
    description: str = "",
    parent: Version | None = None,
    change: dict[str, Any] | None = None,
    told: "Callable[..., None]" = silent,
) -> Prepared:
    """Check rows and put them on disk."""
    from datasets_app.checks import findings, text_statistics
    from datasets_app.versions import canonical

    require_room()
    report, before = findings.run(rows, told), parent or _newest(name)
    frame = _with_places(rows.frame, report.facts, before)
    version = Version(
        hash=canonical.digest(frame),
        parent=parent,
        author=user,
        note=note[:300],
        rows=frame.height,
        labels=canonical.counts(frame["label"]),
        splits=canonical.splits(frame),
        lengths=canonical.histogram(frame["text"]),
        tokens={SAMPLE_MODEL: report.tokens},
        languages=report.languages,
        words=text_statistics.words(frame),
        source=source,
        change=change or {},
    )
    canonical.store(frame, version.path, before.path if before else None)
    return Prepared(user, name, version, report.found, description)


def _newest(name: str) -> Version | None:
    return Version.objects.filter(dataset__name=name).first()


def _with_places(frame: "pl.DataFrame", facts: "pl.DataFrame", before: Version | None) -> "pl.DataFrame":
    """Where no rows to evaluate on were given, each row gets its place, and keeps it in all later versions."""
    import polars as pl

    from engine.data import splits

    if "split" in frame.columns and (frame["split"] == "eval").any():
        return frame.drop(splits.COLUMN, strict=False)
    known = pl.scan_parquet(before.path) if before and before.path.exists() else None
    placed = known is not None and splits.COLUMN in known.collect_schema()
    places = splits.placed(
        facts, known.select("text", splits.COLUMN).collect() if known is not None and placed else None
    )
    return frame.with_columns(places)


def insert(prepared: Prepared) -> Version:
    """Let the database know; from here on the version is there."""
    return _on_disk(_insert(prepared))


def _on_disk(version: Version) -> Version:
    """Somebody may have deleted the only other version of these rows after they were found on disk: then it is undone."""
    if version.path.exists():
        return version
    with transaction.atomic():
        record("dataset.store", user=version.author, obj=version, result="undone")
        version.delete()
        Dataset.objects.filter(pk=version.dataset_id, versions=None).delete()
    raise Conflict(_("The rows have just been deleted with another dataset. Nothing was stored; send them again."))


@transaction.atomic
def _insert(prepared: Prepared) -> Version:
    user, name, version = prepared.user, prepared.name, prepared.version
    dataset = _target(user, name)
    try:
        with transaction.atomic():
            dataset = dataset or Dataset.objects.create(name=name, owner=user, description=prepared.description[:300])
    except IntegrityError:
        raise Conflict(_("This name has just been taken. Choose another."), field="name") from None
    dataset = Dataset.objects.select_for_update().get(pk=dataset.pk)  # one next number at a time
    newest = dataset.versions.first()
    version.dataset, version.parent = dataset, version.parent or newest
    version.number = newest.number + 1 if newest else 1
    version.save(force_insert=True)
    if prepared.broken:
        BrokenLines.objects.create(version=version, text=prepared.broken)
    Finding.objects.bulk_create(_finding(version, f) for f in prepared.found)
    record("dataset.store", user=user, obj=version, rows=version.rows, hash=version.hash, **version.change)
    return version


def _finding(version: Version, found: "Found") -> Finding:
    with override("en"):  # the API's sentence; pages say it in the reader's language
        message = wording.sentence(found.code, found.count)
    return Finding(
        version=version,
        code=found.code,
        severity=found.severity,
        count=found.count,
        message=message,
        examples=found.examples,
    )


@transaction.atomic
def delete(*, user: User, dataset: Dataset) -> None:
    """Delete a dataset with all versions; Conflict names the runs that still need it."""
    runs = list(dataset.versions.filter(experiments__isnull=False).values_list("experiments__name", flat=True))
    if runs:
        message = _("This dataset is used by %(runs)s. Nothing was deleted; a run must always find its data.")
        shown = ", ".join(runs[:5]) + (" …" if len(runs) > 5 else "")
        raise Conflict(message % {"runs": shown}, experiments=runs[:50])
    paths = {v.hash: v.path for v in dataset.versions.all()}
    Version.objects.filter(dataset=dataset).update(parent=None)  # parents are protected one by one, not as a family
    dataset.delete()
    record("dataset.delete", user=user, obj=dataset, versions=len(paths))
    transaction.on_commit(lambda: _remove_unused(paths))


def _remove_unused(paths: dict[str, Path]) -> None:

    used = set(Version.objects.filter(hash__in=paths).values_list("hash", flat=True))
    for digest, path in paths.items():
        if digest not in used:
            remove_on_commit(path)


def load_samples(*, owner: User) -> None:
    """Store the sample datasets once, and let every member and viewer see them."""
    from samples import SAMPLES

    for name, rows in SAMPLES.items():
        if not Dataset.objects.filter(name=name).exists():
            _load_sample(owner, name, rows())


def _load_sample(owner: User, name: str, frame: Any) -> None:
    from datasets_app.reading import columns
    from datasets_app.reading.table import ROW, Table

    table = Table(frame.with_row_index(ROW, offset=1).fill_null(""), "sample")
    rows = columns.rows_of(table, columns.Chosen("text", "label", None))
    description, note = _SAMPLE_WORDS.get(name, ("", ""))
    source = _source(table, rows, f"sample {name}")
    version = insert(prepare(owner, name, rows, source=source, note=note, description=description))
    for role in (Role.MEMBER, Role.VIEWER):
        share(version.dataset, to=Group.objects.get_or_create(name=role)[0])


_SAMPLE_WORDS = {  # description and note
    "tweets-en": (
        "English tweets, graded by people as negative, neutral or positive.",
        "Every row is kept as published, dirt included. How sure the graders were (column confidence) is not used.",
    ),
    "reviews-zh": (
        "Chinese reviews of books, hotels and goods, positive or negative.",
        "Every review is kept as published.",
    ),
}
