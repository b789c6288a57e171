"""Reads of datasets and their versions."""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import F, Prefetch, QuerySet
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import get_managed, get_visible, visible
from accounts.quotas import counts
from web.errors import Invalid, NotFound
from work.models import Status

from .models import BrokenLines, Dataset, DataTask, Finding, Suspect, Version

if TYPE_CHECKING:
    import polars as pl


def datasets_for(user: User) -> QuerySet[Dataset]:
    """The datasets that the person may see, each with its versions, newest first, and their findings."""
    findings = Prefetch("versions__findings", Finding.objects.defer("examples"))
    return visible(user, Dataset.objects.select_related("owner")).prefetch_related(
        Prefetch("versions", Version.objects.select_related("parent", "author")), findings
    )


@counts("storage")
def stored_by(user: User) -> int:
    """Bytes of the rows that a person owns; the same rows twice lie on disk once."""
    sizes: dict[int, int] = {}
    for version in Version.objects.filter(dataset__owner=user).only("hash"):
        sizes |= version.sizes()
    return sum(sizes.values())


def dataset_for(user: User, name: str) -> Dataset:
    versions = Prefetch("versions", Version.objects.select_related("parent", "author"))
    return get_visible(user, Dataset.objects.select_related("owner").prefetch_related(versions), name=name)


def version_of(dataset: Dataset, number: object) -> Version:
    """The version of that number; the newest where none is named."""
    if number in (None, ""):
        return dataset.latest
    found = next((v for v in dataset.versions.all() if str(v.number) == str(number)), None)
    if found is None:
        raise NotFound(_("This dataset has no such version."))
    return found


def version_for(user: User, reference: str) -> Version:
    """The version that "name" (the newest) or "name@3" means; Invalid says in words what there is instead."""
    name, _at, number = str(reference).partition("@")
    dataset = visible(user, Dataset.objects.all()).filter(name=name).first() if "\x00" not in name else None
    if dataset is None:
        raise Invalid(_no_dataset(user, name), field="data.dataset_name")
    versions = dataset.versions.select_related("dataset")
    found = versions.filter(number=int(number)).first() if _is_number(number) else None
    found = versions.first() if not _at else found
    if found is None:
        numbers = ", ".join(str(n) for n in versions.values_list("number", flat=True)[:20])
        message = _("The dataset “%(name)s” has no version “%(number)s”; it has %(numbers)s.")
        facts = {"name": name, "number": number[:20], "numbers": numbers}
        raise Invalid(message % facts, field="data.dataset_name")
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _no_dataset(user: User, name: str) -> str:
    names = list(visible(user, Dataset.objects.all()).values_list("name", flat=True))
    if not names:
        return _("There is no dataset “%(name)s”; you have none yet. Upload one first.") % {"name": name[:80]}
    near = get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
    message = _("There is no dataset “%(name)s” that you can see. You have: %(near)s.")
    return message % {"name": name[:80], "near": ", ".join(near)}


def broken_lines(version: Version) -> str:
    """The lines of its file that could not be read; NotFound where there are none."""
    found = BrokenLines.objects.filter(version=version).first()
    if found is None:
        raise NotFound(_("This version has no broken lines."))
    return found.text


def task_for(user: User, task_id: UUID, *, manage: bool = False) -> DataTask:
    """A task on data, for who started it and for admins."""
    return (get_managed if manage else get_visible)(user, DataTask.objects.select_related("version"), pk=task_id)


def running_tasks(user: User) -> QuerySet[DataTask]:
    return visible(user, DataTask.objects.filter(status__in=[Status.PENDING, Status.STARTED]))


def running_on(version: Version, kind: DataTask.Kind) -> DataTask | None:
    """The task of that kind that works on the version now, whoever started it."""
    return version.tasks.filter(kind=kind, status__in=[Status.PENDING, Status.STARTED]).first()


def next_suspect(version: Version, after: int = 0) -> Suspect | None:
    """The likeliest wrong row that nobody has looked at; behind the last one it begins again."""
    left = version.suspects.filter(decision=None)
    return left.filter(rank__gt=after).first() or left.first()


def review_counts(version: Version) -> dict[str, int]:
    """How far the review is: suspects in all, looked at, kept, corrected, dropped."""
    looked = version.suspects.exclude(decision=None)
    kept, dropped = looked.filter(decision=F("label")).count(), looked.filter(decision="").count()
    return {
        "suspects": version.suspects.count(),
        "looked": looked.count(),
        "kept": kept,
        "dropped": dropped,
        "corrected": looked.count() - kept - dropped,
    }


def rows_page(
    version: Version, *, label: str = "", text: str = "", split: str = "", start: int, size: int
) -> tuple[list[dict[str, Any]], int]:
    """Some rows of a version that have the label, are in the split, contain the text; and how many there are."""
    import polars as pl  # half a second that pages without rows must not wait for

    from datasets_app.versions.canonical import with_split

    found = _filtered(with_split(pl.scan_parquet(version.path)), label, text)
    if split:
        found = found.filter(pl.col("split") == split) if "split" in found.collect_schema() else found.clear()
    total = found.select(pl.len()).collect().item()
    return found.slice(start, size).collect().to_dicts(), total


def _filtered(rows: "pl.LazyFrame", label: str, text: str) -> "pl.LazyFrame":
    import polars as pl

    if label:
        rows = rows.filter(pl.col("label") == label)
    if text:
        lowered = pl.col("text").str.to_lowercase()
        rows = rows.filter(lowered.str.contains(text.lower(), literal=True))
    return rows
