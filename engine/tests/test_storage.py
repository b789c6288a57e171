"""Files and folders exist whole or not at all: after a crash at any step, on a full disk, and with several writers at once."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from engine import storage
from engine.errors import CheckpointDamagedError, DiskFullError
from engine.tests.faults import Faults, forked, kill

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="each attempt is a fork")
OLD = {"a": "old a", "b": "old b"}
NEW = {"a": "new a", "c": "new c"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def fill_with(files: dict[str, str]) -> Callable[[Path], None]:
    def fill(draft: Path) -> None:
        for name, text in files.items():
            (draft / name).write_text(text)

    return fill


def content(folder: Path) -> dict[str, str] | None:
    """What a folder holds, without its manifest; None where there is no folder."""
    if not folder.exists():
        return None
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != storage.MANIFEST}


def drafts(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(storage.DRAFT)]


def states_after_a_crash_at_each_step(root: Path, operation: Callable[[Path], Any], check: Callable[[Path], Any]) -> list[Any]:  # fmt: skip
    """Run an operation on a fresh copy of OLD in a fork that is killed at the 1st, 2nd, 3rd … change of a file."""
    states = []
    for step in range(1, 100):
        folder = root / str(step)
        folder.mkdir()
        storage.write_folder(folder / "target", fill_with(OLD))
        storage.write_text(folder / "file", "old")

        def attempt(folder: Path = folder, step: int = step) -> str:
            Faults(folder, step, kill)
            operation(folder)
            return "done"

        ended = forked(attempt)
        states.append(check(folder))
        storage.sweep_drafts(folder)
        assert drafts(folder) == []
        if ended == "done":
            return states
        assert ended == signal.Signals.SIGKILL.name
    raise AssertionError("the operation never ended")


@needs_fork
@pytest.mark.process
def test_file_is_old_or_new_after_a_crash_at_any_step(home):
    states = states_after_a_crash_at_each_step(
        home,
        lambda folder: storage.write_text(folder / "file", "new"),
        lambda folder: (folder / "file").read_text(),
    )
    assert states[0] == "old" and states[-1] == "new" and len(states) >= 3
    assert set(states) == {"old", "new"}


@needs_fork
@pytest.mark.process
def test_folder_is_old_new_or_absent_after_a_crash_at_any_step(home):
    def verified_content(folder: Path) -> dict[str, str] | None:
        if (folder / "target").exists():
            storage.verify_folder(folder / "target")
        return content(folder / "target")

    states = states_after_a_crash_at_each_step(
        home, lambda folder: storage.write_folder(folder / "target", fill_with(NEW)), verified_content
    )
    assert states[0] == OLD and states[-1] == NEW
    assert all(state in (OLD, NEW, None) for state in states)


@needs_fork
@pytest.mark.process
def test_removed_folder_is_whole_or_absent_after_a_crash_at_any_step(home):
    states = states_after_a_crash_at_each_step(
        home,
        lambda folder: storage.remove_folder(folder / "target"),
        lambda folder: content(folder / "target"),
    )
    assert states[0] == OLD and states[-1] is None
    assert all(state in (OLD, None) for state in states)


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.write_text"])
def test_full_disk_leaves_the_old_file_and_no_draft(home, monkeypatch, call):
    target = home / "file"
    storage.write_text(target, "old")
    with monkeypatch.context() as patched:
        patched.setattr(call, refuse)
        with pytest.raises(DiskFullError, match="file could not be written: the disk is full"):
            storage.write_text(target, "new")
    assert target.read_text() == "old" and os.listdir(home) == ["file"]


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.rename", "pathlib.Path.write_text", "pathlib.Path.mkdir"])
def test_full_disk_leaves_the_old_folder_and_no_draft(home, monkeypatch, call):
    target = home / "target"
    storage.write_folder(target, fill_with(OLD))
    with monkeypatch.context() as patched:
        patched.setattr(call, refuse)
        with pytest.raises(DiskFullError, match="target could not be written: the disk is full"):
            storage.write_folder(target, fill_with(NEW))
    assert content(target) == OLD and os.listdir(home) == ["target"]


def test_old_folder_comes_back_where_the_new_one_cannot_take_its_name(home, monkeypatch):
    target, rename = home / "target", Path.rename
    storage.write_folder(target, fill_with(OLD))

    def refuse_once_the_name_is_free(path: Path, new: Path) -> Path:
        if new == target and not target.exists() and (path / "c").exists():
            refuse()
        return rename(path, new)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse_once_the_name_is_free)
        with pytest.raises(DiskFullError):
            storage.write_folder(target, fill_with(NEW))
    assert content(target) == OLD and os.listdir(home) == ["target"]


def test_error_of_the_fill_passes_through_and_leaves_the_old_content(home):
    def fail(draft: Path) -> None:
        draft.joinpath("half").write_text("x") if draft.is_dir() else draft.write_text("half")
        raise ValueError("cannot be filled")

    storage.write_text(home / "file", "old")
    storage.write_folder(home / "target", fill_with(OLD))
    for write, name in ((storage.write_file, "file"), (storage.write_folder, "target")):
        with pytest.raises(ValueError, match="cannot be filled"):
            write(home / name, fail)
    assert (home / "file").read_text() == "old" and content(home / "target") == OLD
    assert drafts(home) == []


def test_json_with_an_infinite_number_replaces_nothing(home):
    storage.write_json(home / "file", {"loss": 1.5})
    with pytest.raises(ValueError, match="Out of range"):
        storage.write_json(home / "file", {"loss": float("inf")})
    assert json.loads((home / "file").read_text()) == {"loss": 1.5}


def write_again_and_again(folder: Path, letter: str, rounds: int) -> None:
    files = dict.fromkeys("abc", letter * 20000)
    for _ in range(rounds):
        storage.write_text(folder / "file", letter * 200_000)
        storage.write_folder(folder / "target", fill_with(files))


@needs_fork
@pytest.mark.process
def test_writers_of_one_target_never_mix_and_every_one_of_them_succeeds(home):
    """A reader sees one writer's file or another's. A folder can be missing for a moment, but is never a mixture."""
    storage.write_text(home / "file", "z" * 200_000)
    fork = get_context("fork")
    writers = [fork.Process(target=write_again_and_again, args=(home, letter, 15)) for letter in "xyw"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        text = (home / "file").read_text()
        assert len(text) == 200_000 and len(set(text)) == 1
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    storage.verify_folder(home / "target")
    assert len({text[0] for text in (content(home / "target") or {}).values()}) == 1
    assert drafts(home) == []


def test_drafts_of_one_target_differ_and_stay_hidden_however_long_the_name(home):
    seen: list[str] = []

    def fill(draft: Path) -> None:
        seen.append(draft.name)
        draft.touch()

    for _ in range(3):
        storage.write_file(home / ("名" * 80), fill)
    assert len(set(seen)) == 3 and all(name.startswith(storage.DRAFT) for name in seen)


def test_content_addressed_folder_keeps_the_one_that_is_there(home):
    storage.write_folder(home / "target", fill_with(OLD))
    inode = (home / "target").stat().st_ino
    storage.write_folder(home / "target", fill_with(NEW), manifest=False, keep_existing=True)
    assert content(home / "target") == OLD and (home / "target").stat().st_ino == inode
    assert drafts(home) == []


def test_sweep_spares_drafts_that_somebody_may_still_fill(home):
    for name in ("fresh", "stale"):
        (home / f"{storage.DRAFT}{name}").mkdir()
    yesterday = time.time() - 86_400
    os.utime(home / f"{storage.DRAFT}stale", (yesterday, yesterday))
    storage.sweep_drafts(home, older_than_s=3600)
    assert drafts(home) == [f"{storage.DRAFT}fresh"]
    storage.sweep_drafts(home)
    assert drafts(home) == []


def test_linked_file_is_one_on_the_disk_and_a_copy_where_links_are_refused(home, monkeypatch):
    (home / "source").write_text("content")
    storage.link_or_copy(home / "source", home / "linked")
    assert (home / "source").samefile(home / "linked")
    monkeypatch.setattr("os.link", refuse)
    storage.link_or_copy(home / "source", home / "copied")
    assert (home / "copied").read_text() == "content" and not (home / "source").samefile(home / "copied")


def test_copied_tree_holds_no_drafts_and_tells_what_vanished(home, monkeypatch):
    source = home / "source"
    source.mkdir()
    storage.write_folder(source / "inner", fill_with(OLD))
    (source / f"{storage.DRAFT}half").mkdir()
    (source / f"{storage.DRAFT}half" / "x").write_text("x")
    (source / "vanishing").write_text("x")
    missing: list[Path] = []

    def copy(path: Path, to: Path) -> None:
        if path.name == "vanishing":
            raise FileNotFoundError
        to.write_bytes(path.read_bytes())

    monkeypatch.setattr("shutil.copy2", copy)
    storage.copy_tree(source, home / "copy", on_missing=missing.append)
    storage.verify_folder(home / "copy" / "inner")
    assert os.listdir(home / "copy") == ["inner"] and missing == [source / "vanishing"]


def test_folder_with_changed_missing_or_further_file_does_not_verify(home):
    def damage(name: str, change: Callable[[Path], Any]) -> None:
        storage.write_folder(home / "target", fill_with(OLD))
        storage.verify_folder(home / "target")
        change(home / "target" / name)
        with pytest.raises(CheckpointDamagedError):
            storage.verify_folder(home / "target")

    damage("a", lambda path: path.write_text("changed"))
    damage("a", lambda path: path.unlink())
    damage("further", lambda path: path.write_text("x"))
    damage(storage.MANIFEST, lambda path: path.write_text("{"))


def test_files_that_the_system_keeps_are_told_and_hidden(home, monkeypatch):
    storage.write_folder(home / "target", fill_with(OLD))
    with monkeypatch.context() as patched:
        patched.setattr("os.unlink", refuse)
        left = storage.remove_folder(home / "target")
    assert len([line for line in left if line.endswith("No space left on device")]) == 3
    assert not (home / "target").exists() and len(drafts(home)) == 1


def test_what_is_not_there_is_removed_without_a_word(home):
    assert storage.remove(home / "nothing") == [] and storage.remove_folder(home / "nothing") == []
