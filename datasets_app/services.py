"""Everything that changes datasets: a new version from a file, deletion, the samples."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import override

from accounts.errors import Conflict, Invalid
from accounts.idempotency import fingerprint, made_before, once
from accounts.models import Role, User
from accounts.permissions import require_creator, share, visible
from accounts.quotas import require_storage
from audit.services import record

from . import wording
from .models import Dataset, Finding, Version

if TYPE_CHECKING:
    from .checks import Found
    from .columns import Rows
    from .reading import Table

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_RESERVED = {"new"}  # an address of the pages


def create_version(
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
    idempotency_key: str | None = None,
) -> Version:
    """Read, check and store a file as a new dataset, or as the next version of one that the person manages.

    The rows are on disk, whole, before the database knows of them; a refused file leaves nothing behind.
    """
    from . import columns, reading

    require_creator(user)
    mark = _mark(file, name, text_column, label_column, encoding, delimiter, note) if idempotency_key else ""
    if known := made_before(user, idempotency_key, mark, Version.objects.all()):
        return cast(Version, known)
    _target(user, name)
    require_storage(user, file.stat().st_size)
    table = reading.read(
        file,
        filename,
        limit=settings.UPLOAD_LIMIT,
        encoding=encoding,
        delimiter=delimiter,
        scratch=settings.FILE_UPLOAD_TEMP_DIR,
    )
    rows = columns.rows_of(table, columns.choose(table, text_column, label_column))
    columns.refuse_untrainable(rows)
    source = _source(table, rows, filename)
    return _add(user, name, rows, source=source, note=note, description=description, key=(idempotency_key, mark))


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


def _add(
    user: User,
    name: str,
    rows: "Rows",
    *,
    source: dict[str, Any],
    note: str,
    description: str,
    key: tuple[str | None, str] = (None, ""),
) -> Version:
    from . import canonical, checks

    found, frame = checks.run(rows), rows.frame
    version = Version(
        hash=canonical.digest(frame),
        author=user,
        note=note[:300],
        rows=frame.height,
        labels=canonical.counts(frame["label"]),
        splits=canonical.counts(frame["split"]) if "split" in frame.columns else {},
        lengths=canonical.histogram(frame["text"]),
        source=source,
    )
    canonical.store(frame, version.path)
    with once(user, *key, Version.objects.all()) as stored:
        if stored.made:
            return cast(Version, stored.made)
        _insert(version, user, name, found, description)
        stored.made = version
    canonical.store(frame, version.path)  # somebody may have deleted the only other version of these rows meanwhile
    return version


def _insert(version: Version, user: User, name: str, found: "list[Found]", description: str) -> None:
    dataset = _target(user, name)
    try:
        with transaction.atomic():
            dataset = dataset or Dataset.objects.create(name=name, owner=user, description=description[:300])
    except IntegrityError:
        raise Conflict(_("This name has just been taken. Choose another."), field="name") from None
    dataset = Dataset.objects.select_for_update().get(pk=dataset.pk)  # one next number at a time
    version.dataset, version.parent = dataset, dataset.versions.first()
    version.number = version.parent.number + 1 if version.parent else 1
    version.save(force_insert=True)
    Finding.objects.bulk_create(_finding(version, f) for f in found)
    record("dataset.store", user=user, obj=version, rows=version.rows, hash=version.hash)


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
            path.unlink(missing_ok=True)


def load_samples(*, owner: User) -> None:
    """Store the sample datasets once, and let every member and viewer see them."""
    from samples import SAMPLES

    for name, rows in SAMPLES.items():
        if not Dataset.objects.filter(name=name).exists():
            _load_sample(owner, name, rows())


def _load_sample(owner: User, name: str, frame: Any) -> None:
    from . import columns, reading

    numbered = frame.with_row_index(reading.ROW, offset=1).fill_null("")
    table = reading.Table(numbered, "sample")
    rows = columns.rows_of(table, columns.Chosen("text", "label", None))
    description, note = _SAMPLE_WORDS.get(name, ("", ""))
    source = _source(table, rows, f"sample {name}")
    version = _add(owner, name, rows, source=source, note=note, description=description)
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
