"""Create versions: read a file, check its rows, write them to disk, and insert the version into the database.

The rows are on disk, whole, before the database knows of them. That is why each creation has two steps: `prepare…` does the
slow part outside any transaction, `insert` is one short transaction.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import override

from accounts.idempotency import create_once, find_created, fingerprint
from accounts.models import User
from accounts.permissions import can_manage, require_creator
from accounts.quotas import require_storage_quota
from accounts.removals import require_free_name
from audit.services import record
from datasets_app import descriptions
from datasets_app.models import USUAL_TASK_TYPES, BrokenLines, Dataset, Finding, Version
from datasets_app.progress import ReportProgress, ignore_progress
from datasets_app.reading.options import column_options, file_options
from engine.config_sections import SAMPLE_MODEL, DataSection
from web.disk import require_disk_space
from web.errors import ConflictError, InvalidError
from web.names import named_alike, require_valid_name

if TYPE_CHECKING:
    import polars as pl

    from datasets_app.checks.checked_rows import CheckResult
    from datasets_app.reading.stored_rows import Rows
    from datasets_app.reading.table import Table

_RESERVED = ("new", "tasks")  # addresses of pages and of the API


class StoreOptions(TypedDict, total=False):
    """What a person can say about a file; what is left out is guessed."""

    text_column: str | None
    text_columns: list[str]  # in place of one: joined in this order
    text_pair_column: str | None
    label_column: str | None
    label_columns: list[str]  # in place of one: a column of yes and no for each label
    split_column: str | None
    split_values: dict[str, str]
    kind: str | None
    merge_labels: bool
    column_roles: dict[str, str]  # of conversations: {column: one of options.ROLES}
    encoding: str | None
    delimiter: str | None
    quote: str | None
    header: bool | None
    skip_lines: int | None
    sheet: str | None
    note: str
    description: str


READ_OPTIONS = tuple(name for name in StoreOptions.__annotations__ if name not in ("note", "description"))


@dataclass
class PreparedVersion:
    """A version whose rows are on disk and which is not in the database yet."""

    user: User
    name: str
    version: Version
    check_results: "list[CheckResult]"
    description: str = ""
    broken: str = ""  # the lines that could not be read


def check_name(user: User, name: str) -> None:
    """Raise NotAllowedError, InvalidError or ConflictError if the person cannot store a dataset under this name."""
    require_creator(user)
    find_own_dataset(user, name)


def find_own_dataset(user: User, name: str) -> Dataset | None:
    """Return the person's dataset of this name, or None if there is none yet.

    Raises InvalidError or ConflictError if the name cannot be theirs.
    """
    dataset = Dataset.objects.filter(name=name).first()
    if dataset is None:  # the rule is for new names: before it, a dataset could have a dot at the end or two in a row
        require_valid_name(name, field="name", reserved=_RESERVED)
        refuse_similar_name(name)
    elif not can_manage(user, dataset):
        raise ConflictError(_("This name is taken by another person's dataset. Choose another."), field="name")
    else:
        require_free_name(dataset)
    return dataset


def refuse_similar_name(name: str) -> None:
    """Raise ConflictError if there is a dataset whose name differs from this new one in case or width only."""
    similar = Dataset.objects.filter(named_alike(name)).first()
    if similar is not None:
        message = _(
            "There is already a dataset called %(name)s. Its name differs only in case or width. Choose another."
        )
        raise ConflictError(message % {"name": similar.name}, field="name")


def create_version(
    *,
    user: User,
    name: str,
    file: Path,
    filename: str,
    idempotency_key: str | None = None,
    digest: str = "",
    limit: int | None = None,
    seconds: float | None = None,
    **options: Unpack[StoreOptions],
) -> Version:
    """Store a file as a new dataset, or as the next version of a dataset that the person manages.

    A file that is refused leaves nothing behind. `digest`: what the key is bound to, by default the request. See
    `prepare_file` for `limit` and `seconds`.
    """
    if idempotency_key and not digest:
        digest = upload_fingerprint(file, name, options)
    if earlier := find_created(user, idempotency_key, digest, Version.objects.all()):
        return earlier
    prepared = prepare_file(user=user, name=name, file=file, filename=filename, limit=limit, seconds=seconds, **options)
    version = create_once(user, idempotency_key, digest, Version.objects.all(), lambda: _insert(prepared))
    return _require_rows_on_disk(version)


def upload_fingerprint(file: Path, name: str, options: StoreOptions) -> str:
    """Return what an Idempotency-Key is bound to: the content of the file, the name and the options."""
    with file.open("rb") as content:
        return fingerprint("dataset", hashlib.file_digest(content, "sha256").hexdigest(), name, options)


def prepare_file(
    *,
    user: User,
    name: str,
    file: Path,
    filename: str,
    limit: int | None = None,
    seconds: float | None = None,
    report: ReportProgress = ignore_progress,
    **options: Unpack[StoreOptions],
) -> PreparedVersion:
    """Read and check a file and write its rows to disk.

    `limit`: bytes of the unpacked file, by default UPLOAD_LIMIT_MB. `seconds`: see `sandbox.read`.
    """
    check_name(user, name)
    require_storage_quota(user, file.stat().st_size)
    report("reading")
    table, rows = read_rows(
        file,
        filename,
        options,
        limit=limit or settings.UPLOAD_LIMIT,
        seconds=seconds,
        report=report,
    )
    source = describe_source(table, rows, filename)
    broken = table.broken_text
    del table  # `rows` has its cells now; a million rows need not be in memory twice
    note = options.get("note", "")
    description = options.get("description", "")
    prepared = prepare(user, name, rows, source=source, note=note, description=description, report=report)
    prepared.broken = broken
    return prepared


def read_rows(
    file: Path,
    filename: str,
    options: StoreOptions,
    *,
    limit: int,
    seconds: float | None = None,
    report: ReportProgress = ignore_progress,
) -> "tuple[Table, Rows]":
    """Read a file in a process of its own and choose its columns. Raises what `sandbox.read` raises.

    A large file is read twice: its first rows to choose the columns, then these columns alone, which takes less memory.
    """
    from datasets_app.reading import columns, rows, sandbox  # polars takes half a second to import

    read = partial(
        sandbox.read,
        file,
        filename,
        limit=limit,
        options=file_options(options),
        seconds=seconds,
        waiting=partial(report, "reading"),
    )
    table = read(head=True)
    try:
        choice = columns.choose_columns(table, column_options(options))
    except InvalidError:
        if table.complete or table.kind not in ("json", "jsonl"):
            raise
        table = read()  # later records of JSON may have further fields
        choice = columns.choose_columns(table, column_options(options))
    unused = [*columns.notes_on_choice(table, choice)]
    if not table.complete:
        table = read(only=choice.columns)
    refuse_mostly_broken(table)
    selected = rows.select_rows(table, choice)
    selected.notes = [*table.notes, *selected.notes, *unused]
    rows.refuse_untrainable(selected)
    return table, selected


def refuse_mostly_broken(table: "Table") -> None:
    """Raise InvalidError if more lines are broken than were read: they are read in the wrong way."""
    if table.broken_lines > table.frame.height:
        message = _(
            "%(broken)s lines of this file can't be read, more than the %(rows)s that can, such as line %(row)s: “%(text)s”. "
            "Nothing was stored. Check the delimiter and the quotation mark."
        )
        first = table.broken_examples[0]
        facts = {"broken": table.broken_lines, "rows": table.frame.height}
        facts |= {"row": first["row"], "text": first["text"][:80]}
        raise InvalidError(message % facts, field="delimiter")


def describe_source(table: "Table", rows: "Rows", filename: str) -> dict[str, Any]:
    """Return `Version.source`: how the file was read. `reading.report` tells it to people and programs."""
    choice = rows.choice
    return {
        "filename": Path(filename).name.replace("\x00", "")[:200],
        "kind": table.kind,
        "encoding": table.encoding,
        "delimiter": table.delimiter,
        "quote": table.quote,
        "header": table.header,
        "sheet": table.sheet,
        "skipped_lines": table.skipped_lines,
        "text_column": choice.text,
        "label_column": choice.label,
        "split_column": choice.split,
        "columns": {
            "text": choice.texts,
            "text_pair": choice.pair,
            "label": choice.labels,
            "split": choice.split,
            **choice.roles,
        },
        "rows_read": rows.rows_read,
        "left_out": rows.left_out,
        "lines": table.lines,
        "notes": rows.notes,
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
    report: ReportProgress = ignore_progress,
) -> PreparedVersion:
    """Check rows and write them to disk."""
    from datasets_app.checks import findings, text_statistics  # polars takes half a second to import
    from datasets_app.reading.rows import count_labels
    from datasets_app.versions import canonical

    require_disk_space()
    checks = findings.run_checks(rows, report)
    previous = parent or Version.objects.filter(dataset__name=name).first()
    frame = assign_places(rows.frame, rows.kind, checks.facts, previous)
    checks.facts = checks.facts.clear()  # 40 MB for a million rows, while the rows are hashed and written
    version = Version(
        hash=canonical.hash_rows(frame),
        parent=parent,
        author=user,
        note=note[:300],
        rows=frame.height,
        kind=rows.kind,
        labels=count_labels(frame["label"], rows.kind),
        splits=canonical.count_splits(frame),
        lengths=checks.lengths,
        tokens={SAMPLE_MODEL: checks.tokens},
        languages=checks.languages,
        words=text_statistics.words_by_label(frame) if rows.kind == Version.Kind.LABELS else {},
        source=source,
        change=change or {},
    )
    canonical.store(frame, version.path, previous.path if previous else None)
    return PreparedVersion(user, name, version, checks.results, description)


def assign_places(frame: "pl.DataFrame", kind: str, facts: "pl.DataFrame", previous: Version | None) -> "pl.DataFrame":
    """Give each row its place in the held-out order, unless the file has an evaluation split.

    A row keeps the place that it had in the previous version, so that results of the two can be compared.
    """
    from engine.data import splits
    from engine.data.label_columns import LABEL_COLUMNS

    if "split" in frame.columns and (frame["split"] == "eval").any():
        return frame.drop(splits.PLACE_COLUMN, strict=False)
    if kind in USUAL_TASK_TYPES and kind != Version.Kind.LABELS:
        # Nearly every score and every list of labels differs from all others, so none of them would be held out.
        facts = facts.with_columns(LABEL_COLUMNS[USUAL_TASK_TYPES[kind]].strata(frame["label"]).alias("label"))
    earlier_places = find_earlier_places(previous) if previous and previous.path.exists() else None
    return frame.with_columns(splits.assign_places_to_groups(facts, earlier_places))


def find_earlier_places(previous: Version) -> "pl.DataFrame | None":
    """Return text (both texts of a pair) and place of the rows of a version; None if it has no places of use."""
    import polars as pl

    from engine.data import splits

    rows = pl.scan_parquet(previous.path)
    columns = rows.collect_schema().names()
    if splits.PLACE_COLUMN not in columns:
        return None
    text = pl.concat_str("text", "text_pair", separator="\n") if "text_pair" in columns else pl.col("text")
    places = rows.select(text.alias("text"), splits.PLACE_COLUMN).collect()
    # Earlier releases stored places that hold out no row of scores.
    held_out = places.select(splits.is_held_out(DataSection().eval_fraction).any()).item()
    return places if held_out else None


def insert(prepared: PreparedVersion) -> Version:
    """Insert a prepared version into the database; it is visible from here on."""
    return _require_rows_on_disk(_insert(prepared))


def insert_as_result(prepared: PreparedVersion) -> dict[str, Any]:
    """Insert a prepared version and return the result of the task that made it."""
    version = insert(prepared)
    return {"name": version.dataset.name, "version": version.number, "rows": version.rows}


@transaction.atomic
def _insert(prepared: PreparedVersion) -> Version:
    version = prepared.version
    dataset = find_own_dataset(prepared.user, prepared.name)
    if dataset is None:
        try:
            with transaction.atomic():
                dataset = Dataset.objects.create(
                    name=prepared.name, owner=prepared.user, description=prepared.description[:300]
                )
        except IntegrityError:
            raise ConflictError(_("This name has just been taken. Choose another."), field="name") from None
    dataset = Dataset.objects.select_for_update().get(pk=dataset.pk)  # serialises the next version number
    newest = dataset.versions.first()
    rivals = [newest] if newest else []  # that may make this version pointless
    if version.parent:
        rivals += version.parent.children.all()
    same = next((rival for rival in rivals if (rival.hash, rival.kind) == (version.hash, version.kind)), None)
    if same:
        if version.change:
            raise ConflictError(_("Version %(number)s has exactly these rows already.") % {"number": same.number})
        return same  # the same file again is not a new version
    version.dataset = dataset
    version.parent = version.parent or newest
    version.number = newest.number + 1 if newest else 1
    version.save(force_insert=True)
    if prepared.broken:
        BrokenLines.objects.create(version=version, text=prepared.broken)
    with override("en"):  # the API's sentence is English; pages translate by the code
        findings = [
            Finding(
                version=version,
                code=result.code,
                severity=result.severity,
                count=result.count,
                message=descriptions.describe_finding(result.code, result.count, result.examples),
                examples=result.examples,
            )
            for result in prepared.check_results
        ]
    Finding.objects.bulk_create(findings)
    record("dataset.store", user=prepared.user, obj=version, rows=version.rows, hash=version.hash, **version.change)
    return version


def _require_rows_on_disk(version: Version) -> Version:
    """Undo the insert if the rows are gone: the only other version that shared the file may have been deleted meanwhile."""
    if version.path.exists():
        return version
    with transaction.atomic():
        record("dataset.store", user=version.author, obj=version, result="undone")
        version.delete()
        Dataset.objects.filter(pk=version.dataset_id, versions=None).delete()
    raise ConflictError(_("The rows have just been deleted with another dataset. Nothing was stored; send them again."))
