"""Queries of datasets, versions, rows, suspects and tasks."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Exists, F, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.http import QueryDict
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.permissions import get_visible, visible
from accounts.quotas import counts_usage
from datasets_app.conversations import load, text_of
from datasets_app.reading.options import CHAT_KINDS
from engine.names import name_key
from lists.queries import search_words, sort_rows
from lists.selectors import of_owner, with_tag
from web.errors import InvalidError, NotFoundError
from web.requests import parse_whole_number
from work.models import Status

from .list_columns import BY_NAME, SORTABLE
from .models import BrokenLines, Dataset, DataTask, Finding, Suspect, Version

FILTERS = ("q", "tag", "owner", "sort")  # what search() takes

if TYPE_CHECKING:
    import polars as pl


def datasets_for(user: User) -> QuerySet[Dataset]:
    """Return the datasets that the person may see, each with its versions, newest first, and their findings."""
    findings = Prefetch("versions__findings", Finding.objects.defer("examples"))
    versions = Prefetch("versions", Version.objects.select_related("parent", "author"))
    datasets = visible(user, Dataset.objects.select_related("owner"))
    return datasets.prefetch_related(versions, findings, "tags")


def search(user: User, q: str = "", tag: str = "", owner: str = "", sort: str = "") -> QuerySet[Dataset]:
    """Return the datasets that the person may see, filtered and sorted by a column of SORTABLE ("-rows": descending).

    `q` is words that all occur in the name or the description; `owner` is empty, or "me" for the person's own. One that
    has no version yet is left out.
    """
    newest = Version.objects.filter(dataset=OuterRef("pk")).order_by("-number")
    facts = {f"newest_{name}": Subquery(newest.values(name)[:1]) for name in ("pk", "number", "rows", "created_at")}
    datasets = visible(user, Dataset.objects.filter(Exists(newest))).annotate(**facts)
    for word in search_words(q):
        matches = Q(name_key__contains=name_key(word)) | Q(name__icontains=word) | Q(description__icontains=word)
        datasets = datasets.filter(matches)
    return sort_rows(of_owner(with_tag(datasets, tag), user, owner), sort or BY_NAME, SORTABLE)


def newest_versions(datasets: Iterable[Dataset]) -> list[Version]:
    """Return the newest version of each dataset that `search` has found, with its findings and tags."""
    keys: list[int] = [dataset.newest_pk for dataset in datasets]  # type: ignore[attr-defined]  # see `search`
    findings = Prefetch("findings", Finding.objects.defer("examples"))
    versions = (
        Version.objects.select_related("dataset__owner").prefetch_related(findings, "dataset__tags").in_bulk(keys)
    )
    return [versions[key] for key in keys]


def trainable_versions(user: User) -> dict[str, list[Version]]:
    """Return the versions that a run can learn from by the name of their dataset, newest first; with few of their fields."""
    datasets = visible(user, Dataset.objects.order_by()).values("pk")
    versions = Version.objects.filter(dataset__in=datasets).select_related("dataset")
    by_dataset: dict[str, list[Version]] = {}
    for version in versions.only("number", "rows", "dataset__name").order_by("dataset__name", "-number"):
        by_dataset.setdefault(version.dataset.name, []).append(version)
    return by_dataset


@counts_usage("storage")
def stored_by(user: User) -> int:
    """Return the bytes on disk of the rows that a person owns.

    Files that versions share (hard links, see versions.canonical) have one inode and count once.
    """
    sizes: dict[int, int] = {}
    for version in Version.objects.filter(dataset__owner=user).only("hash"):
        sizes |= version.sizes()
    return sum(sizes.values())


def dataset_for(user: User, name: str, *, manage: bool = False) -> Dataset:
    """Return a dataset with its versions, newest first.

    Raise NotFoundError unless the person may see it; with `manage`, NotAllowedError to somebody who may not change it.
    """
    versions = Prefetch("versions", Version.objects.select_related("parent", "author"))
    datasets = Dataset.objects.select_related("owner").prefetch_related(versions)
    return get_visible(user, datasets, manage=manage, name=name)


def version_of(dataset: Dataset, number: object) -> Version:
    """Return the version with this number, or the newest if no number is given; raise NotFoundError otherwise.

    `number` is a number, or the text of a form or an address. Versions are compared here, as they are prefetched mostly.
    """
    if number in (None, ""):
        return dataset.latest
    for version in dataset.versions.all():
        if str(version.number) == str(number):
            return version
    raise NotFoundError(_("This dataset has no such version."))


def version_for(user: User, reference: str) -> Version:
    """Return the version that "name" (the newest) or "name@3" refers to; raise InvalidError with what exists instead."""
    name, at, number = str(reference).partition("@")
    versions = visible(user, Version.objects.select_related("dataset").filter(dataset__name=name))
    if at:
        # A database column holds no number beyond nine digits.
        wanted = parse_whole_number(number) if len(number) < 10 else None
        version = versions.filter(number=wanted).first() if wanted is not None else None
    else:
        version = versions.first()
    if version is None:
        numbers = ", ".join(str(n) for n in versions.values_list("number", flat=True)[:20])
        if not numbers:
            raise no_such_dataset(user, name)
        message = _("The dataset “%(name)s” has no version “%(number)s”; it has %(numbers)s.")
        facts = {"name": name, "number": number[:20], "numbers": numbers}
        raise InvalidError(message % facts, field="data.dataset_name")
    return version


def no_such_dataset(user: User, name: str) -> InvalidError:
    """Return the error that names datasets with similar names which the person may see."""
    names = list(visible(user, Dataset.objects.all()).values_list("name", flat=True))
    similar = get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
    message = _("There is no dataset “%(name)s” that you can see. You have: %(near)s.")
    if not names:
        message = _("There is no dataset “%(name)s”; you have none yet. Upload one first.")
    return InvalidError(message % {"name": name[:80], "near": ", ".join(similar)}, field="data.dataset_name")


def require_single_labels(version: Version) -> None:
    """Raise InvalidError unless each row of the version is one text with one label."""
    if version.has_single_labels:
        return
    message = _(
        "%(version)s cannot be used here: its rows have %(kind)s%(pairs)s, and this needs rows of one text with one label. "
        "Make a version of such rows, or choose another dataset."
    )
    facts = {"version": version, "kind": version.get_kind_display()}
    facts["pairs"] = _(" and two texts each") if version.has_pairs else ""
    raise InvalidError(message % facts, field="data.dataset_name")


def next_number(name: str) -> int:
    """Return the number that the next version of the dataset with this name gets."""
    newest = Version.objects.filter(dataset__name=name).order_by("-number").first()
    return newest.number + 1 if newest else 1


def broken_lines(version: Version) -> str:
    """Return the lines of the version's file that could not be read; raise NotFoundError if there are none."""
    broken = BrokenLines.objects.filter(version=version).first()
    if broken is None:
        raise NotFoundError(_("This version has no broken lines."))
    return broken.text


def task_for(user: User, task_id: UUID, *, manage: bool = False) -> DataTask:
    """Return a task of the person, or any task for an admin; raise NotFoundError otherwise."""
    tasks = DataTask.objects.select_related("version")
    return get_visible(user, tasks, manage=manage, pk=task_id)


def visible_tasks(user: User) -> QuerySet[DataTask]:
    return visible(user, DataTask.objects.all())


def running_tasks(user: User) -> QuerySet[DataTask]:
    """Return the unfinished tasks that the person may see."""
    return visible_tasks(user).filter(status__in=[Status.PENDING, Status.STARTED])


def next_suspect(version: Version, after: int = 0) -> Suspect | None:
    """Return the next undecided suspect behind this rank; after the last one begin again."""
    undecided = version.suspects.filter(decision=None)
    return undecided.filter(rank__gt=after).first() or undecided.first()


def review_counts(version: Version) -> dict[str, int]:
    """Count the suspects, those reviewed ("looked"), and of these the labels kept and corrected and the rows dropped."""
    reviewed = version.suspects.exclude(decision=None)
    looked = reviewed.count()
    confirmed = reviewed.filter(decision=F("label")).count()
    dropped = reviewed.filter(decision="").count()
    return {
        "suspects": version.suspects.count(),
        "looked": looked,
        "kept": confirmed,
        "dropped": dropped,
        "corrected": looked - confirmed - dropped,
    }


@dataclass(frozen=True)
class RowFilter:
    """Which rows of a version: those that have the label, contain the text, and are in the split; "" for any."""

    label: str = ""
    text: str = ""
    split: str = ""

    @classmethod
    def of_query(cls, query: QueryDict) -> "RowFilter":
        """Return the filter that an address names, on pages and in the API."""
        return cls(query.get("label", ""), query.get("q", "")[:200], query.get("split", ""))


def filter_rows(rows: "pl.LazyFrame", row_filter: RowFilter, kind: str) -> "pl.LazyFrame":
    """Return the rows that pass the filter, with `split` as a run would choose it."""
    import polars as pl  # half a second, which pages without rows need not wait for

    from datasets_app.versions.canonical import with_split

    rows = with_split(rows)
    if row_filter.label and kind in (Version.Kind.MULTI_LABEL, Version.Kind.SPANS):
        quoted = json.dumps(row_filter.label, ensure_ascii=False)  # as it stands among the labels of a row
        rows = rows.filter(pl.col("label").str.contains(quoted, literal=True))
    elif row_filter.label:
        rows = rows.filter(pl.col("label") == row_filter.label)
    if row_filter.text:
        rows = search_rows(rows, row_filter.text, is_chat=kind in CHAT_KINDS)
    if row_filter.split:
        in_split = pl.col("split") == row_filter.split
        rows = rows.filter(in_split) if "split" in rows.collect_schema() else rows.clear()
    return rows


def search_rows(rows: "pl.LazyFrame", text: str, *, is_chat: bool) -> "pl.LazyFrame":
    """Return the rows that contain a text, in any case; conversations in what is said, not in their JSON."""
    import polars as pl  # as above

    lowered = text.lower()
    as_stored = json.dumps(lowered, ensure_ascii=False)[1:-1] if is_chat else lowered
    matching = rows.filter(pl.col("text").str.to_lowercase().str.contains(as_stored, literal=True))
    if not is_chat:
        return matching
    # Only the few rows that are left are parsed.
    return matching.map_batches(
        lambda part: part.filter(
            pl.Series([lowered in text_of(load(stored)).lower() for stored in part["text"]], dtype=pl.Boolean)
        )
    )


def rows_page(
    version: Version, *, label: str = "", text: str = "", split: str = "", start: int, size: int
) -> tuple[list[dict[str, Any]], int]:
    """Return a page of the rows that have the label, contain the text and are in the split; and how many there are."""
    import polars as pl  # as above

    rows = filter_rows(pl.scan_parquet(version.path), RowFilter(label, text, split), version.kind)
    total = rows.select(pl.len()).collect().item()
    return rows.slice(start, size).collect().to_dicts(), total
