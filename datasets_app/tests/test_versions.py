"""Versions are immutable, content-addressed, and stored whole or not at all."""

from typing import Any

import polars as pl
import pytest
from django.db import DatabaseError, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.models import Entry
from datasets_app import selectors, services
from datasets_app.models import Dataset, Version
from datasets_app.versions import canonical
from engine.errors import DiskFullError
from web.errors import ConflictError, InvalidError, NotAllowedError

pairs = st.lists(st.tuples(st.text(), st.sampled_from("ab")), min_size=1, max_size=20)


def frame(rows):
    return pl.DataFrame(rows, schema={"text": pl.String, "label": pl.String}, orient="row")


@pytest.mark.slow
@settings(deadline=None)
@given(pairs, st.randoms())
def test_order_of_rows_does_not_change_the_hash(rows, random):
    shuffled = [*rows]
    random.shuffle(shuffled)
    assert canonical.hash_rows(frame(rows)) == canonical.hash_rows(frame(shuffled))


@pytest.mark.medium
@settings(deadline=None)
@given(pairs, pairs)
def test_different_rows_have_different_hashes(one, other):
    assert (canonical.hash_rows(frame(one)) == canonical.hash_rows(frame(other))) == (sorted(one) == sorted(other))


@pytest.mark.medium
def test_line_endings_do_not_change_the_hash(member, file):
    text = 'text,label\n"two\nlines",a\nother,b\n'
    one = services.create_version(user=member, name="one", file=file(text), filename="a.csv")
    two = services.create_version(user=member, name="two", file=file(text.replace("\n", "\r\n")), filename="a.csv")
    assert one.hash == two.hash and one.path == two.path


def test_stored_version_describes_its_rows(stored):
    assert (stored.number, stored.rows, stored.labels) == (1, 400, {"bad": 200, "good": 200})
    assert stored.source["text_column"] == "comment" and stored.source["label_column"] == "mood"
    assert sum(b["rows"] for b in stored.lengths) == 400
    rows = pl.read_parquet(stored.path)
    assert rows.columns == ["text", "label", "row", "held_out"] and rows["row"].to_list() == list(range(1, 401))
    assert Entry.objects.filter(action="dataset.store", object_id="moods@1").exists()


@pytest.mark.medium
def test_rows_without_text_or_label_are_left_out_and_counted(member, file):
    content = "text,label\ngood one,a\n  ,a\nno label,\nbad one,b\n"
    version = services.create_version(user=member, name="holes", file=file(content), filename="a.csv")
    assert version.rows == 2 and version.source["skipped"] == 2
    finding = version.findings.get(code="empty_text")
    assert finding.count == 2 and [e["row"] for e in finding.examples] == [2, 3]
    assert pl.read_parquet(version.path)["row"].to_list() == [1, 4]


def test_second_upload_is_the_next_version_with_its_parent(stored, member, file):
    again = services.create_version(
        user=member, name="moods", file=file("text,label\nx y z,a\nu v w,b\n"), filename="b.csv"
    )
    assert (again.number, again.parent) == (2, stored)
    assert selectors.version_for(member, "moods") == again
    assert selectors.version_for(member, "moods@1") == stored


@pytest.mark.parametrize(
    "name", ["", "../up", "a/b", "a\\b", "a\x00b", ".hidden", "-x", "new", "a b", "a@1", "e\u202e", "x" * 81]
)
def test_invalid_name_is_refused_and_nothing_is_stored(member, file, good_csv, name, settings):
    with pytest.raises(InvalidError) as caught:
        services.create_version(user=member, name=name, file=file(good_csv), filename="a.csv")
    assert caught.value.problems[0]["field"] == "name"
    assert not Dataset.objects.exists() and not (settings.DATA_DIR / "datasets").exists()


def test_name_of_another_persons_dataset_is_refused(stored, stranger, file, good_csv):
    with pytest.raises(ConflictError, match="taken"):
        services.create_version(user=stranger, name="moods", file=file(good_csv), filename="a.csv")


def test_viewer_cannot_store(viewer, file, good_csv):
    with pytest.raises(NotAllowedError):
        services.create_version(user=viewer, name="mine", file=file(good_csv), filename="a.csv")


def test_unknown_references_list_what_exists(stored, member, stranger):
    with pytest.raises(InvalidError, match="You have: moods") as caught:
        selectors.version_for(member, "mods")
    assert caught.value.problems[0]["field"] == "data.dataset_name"
    with pytest.raises(InvalidError, match="no version “7”; it has 1"):
        selectors.version_for(member, "moods@7")
    with pytest.raises(InvalidError, match="none yet"):
        selectors.version_for(stranger, "moods")


@pytest.mark.medium
def test_deletion_removes_the_file_unless_another_version_has_the_same_rows(
    stored, member, file, good_csv, django_capture_on_commit_callbacks
):
    other = services.create_version(user=member, name="copy", file=file(good_csv), filename="a.csv")
    with django_capture_on_commit_callbacks(execute=True):
        services.delete(user=member, dataset=stored.dataset)
    assert other.path.exists()
    with django_capture_on_commit_callbacks(execute=True):
        services.delete(user=member, dataset=other.dataset)
    assert not other.path.exists() and not Dataset.objects.exists()


@pytest.mark.medium
def test_dataset_with_several_versions_can_be_deleted(stored, member, file, good_csv):
    services.create_version(user=member, name="moods", file=file(good_csv + b"\nmore,good"), filename="a.csv")
    services.delete(user=member, dataset=stored.dataset)
    assert not Version.objects.exists()


def test_dataset_of_a_run_is_kept_and_the_run_named(stored, member):
    stored.experiments.create(name="my-run", owner=member, dataset_name="moods@1", base_model="m")
    with pytest.raises(ConflictError, match="my-run"):
        services.delete(user=member, dataset=stored.dataset)
    assert stored.path.exists()


@pytest.mark.slow
def test_samples_are_loaded_once_and_shown_to_everyone(admin, member, viewer):
    services.load_samples(owner=admin)
    services.load_samples(owner=admin)
    for user in (member, viewer):
        assert [d.name for d in selectors.datasets_for(user)] == ["orders", "reviews-zh", "tweets-en"]
    version = selectors.version_for(viewer, "tweets-en")
    assert version.rows == 38158 and "confidence" in version.note
    assert version.findings.filter(code="encoding").exists()
    orders = selectors.version_for(member, "orders")
    assert orders.task_type == "causal_lm" and orders.splits == {"train": 1600, "eval": 200, "test": 200}
    assert not orders.findings.exists()


@pytest.mark.slow
def test_versions_share_files_of_equal_rows(member, file):
    from datasets_app.versions import changes

    lines = [f"text number {i * i} of {i},{'ab'[i % 2]}" for i in range(3 * canonical.PART // 2)]
    one = services.create_version(
        user=member, name="big", file=file("\n".join(["text,label", *lines])), filename="a.csv"
    )
    changed = changes.prepare(member, one, {"did": "edit", "rows": {"12000": {"label": "a"}, "11000": None}}, "")
    two = services.insert(changed)
    files = [{p.stat().st_ino: p.name for p in version.path.iterdir()} for version in (one, two)]
    assert [len(some) for some in files] == [2, 2]
    assert [name[:6] for inode, name in files[0].items() if inode in files[1]] == ["000000"]
    before, after = (pl.read_parquet(version.path) for version in (one, two))
    assert canonical.hash_rows(before) == one.hash and canonical.hash_rows(after) == two.hash
    services.delete(user=member, dataset=one.dataset)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_rows_are_deleted_with_their_dataset(member, file):
    lines = [f"text number {i * i} of {i},{'ab'[i % 2]}" for i in range(canonical.PART + 5)]
    one = services.create_version(
        user=member, name="big", file=file("\n".join(["text,label", *lines])), filename="a.csv"
    )
    assert one.path.is_dir()
    services.delete(user=member, dataset=one.dataset)
    assert not one.path.exists()


@pytest.mark.django_db(transaction=True)
def test_dataset_whose_deletion_is_rolled_back_keeps_its_rows(stored, member):
    with pytest.raises(DatabaseError), transaction.atomic():
        services.delete(user=member, dataset=stored.dataset)
        raise DatabaseError
    assert pl.read_parquet(Version.objects.get().path).height == stored.rows


@pytest.mark.parametrize("rows", [10, canonical.PART + 5])
def test_rows_that_cannot_be_written_leave_no_file(tmp_path, monkeypatch, rows):
    """And rows that are stored twice, at once or later, are one file with the same content."""
    numbered = frame([(f"text {i}", "ab"[i % 2]) for i in range(rows)]).with_row_index("row", offset=1)
    target = tmp_path / "rows" / "hash.parquet"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(DiskFullError):
            canonical.store(numbered, target)
    assert list(target.parent.iterdir()) == []
    canonical.store(numbered, target)
    canonical.store(numbered, target)
    assert list(target.parent.iterdir()) == [target] and pl.read_parquet(target).height == rows


@pytest.mark.slow
def test_version_whose_rows_vanish_while_it_is_stored_is_undone(member, file, good_csv):
    prepared = services.prepare_file(user=member, name="gone", file=file(good_csv), filename="a.csv")
    prepared.version.path.unlink()
    with pytest.raises(ConflictError, match="Nothing was stored"):
        services.insert(prepared)
    assert not Dataset.objects.exists() and not Version.objects.exists()
    assert services.create_version(user=member, name="gone", file=file(good_csv), filename="a.csv").number == 1
