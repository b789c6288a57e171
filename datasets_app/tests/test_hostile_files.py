"""Malicious files: however their reader ends, the person gets one message, and nothing else is affected."""

import gzip
import io
import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.utils import translation
from pyarrow import parquet

from datasets_app import services
from datasets_app.models import Dataset, DataTask, Version
from datasets_app.reading import readers, sandbox, uploads
from datasets_app.reading.archives import FileTooLargeError
from datasets_app.reading.options import FileOptions
from datasets_app.versions import upload_storage
from web.errors import InvalidError
from work.models import Status

LIMIT = 20 << 20
CSV = b"text,label\n" + b"a good morning,good\na bad evening,bad\n" * 20
ENDS = {  # how a reader ends, the status that a person gets, and what the sentence says
    "is_killed": (413, "The system stopped"),
    "aborts": (400, "crashed"),
    "reads_memory_at_address_zero": (400, "crashed"),
    "panics": (400, "crashed"),
    "takes_memory": (413, "more than 100 MiB of memory"),
    "takes_memory_natively": (413, "more than 100 MiB of memory"),
    "sleeps": (413, "longer than"),
    "computes": (413, "longer than"),
    "ignores_its_alarm": (413, "longer than"),
    "ends_its_process_group": (413, "The system stopped"),
    "forges_the_answer": (400, "crashed"),
    "leaves_no_answer": (400, "crashed"),
}


def as_parquet(**fields: pa.Array) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.table(fields), out)
    return out.getvalue()


@pytest.fixture
def hostile(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return hostile(end), which makes every reader end like this from now on."""
    settings.READER_MEMORY = 100 << 20
    monkeypatch.setattr(sandbox, "_GRACE_SECONDS", 0.2)

    def choose(end: str) -> None:
        if "longer" in ENDS.get(end, (0, ""))[1]:
            settings.READER_SECONDS = 0.4
            monkeypatch.setattr(sandbox, "QUICK_SECONDS", 0.4)
        settings.DATASET_READER = f"datasets_app.tests.hostile.{end}"

    return choose


def send(client: Any, content: bytes, filename: str = "sent.csv", **headers: str) -> Any:
    data = {"name": "sent", "file": SimpleUploadedFile(filename, content)}
    return client.post("/api/datasets", data, format="multipart", headers=headers)


# --- how a reader may end --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_end_of_a_reader_is_one_sentence_in_page_api_and_command(hostile, client, api, member, file, settings, end):
    hostile(end)
    status, says = ENDS[end]
    client.force_login(member)
    page = client.post("/datasets/new/", {"file": SimpleUploadedFile("sent.csv", CSV)})
    assert page.status_code == status and says in page.content.decode()
    answer = send(api(member), CSV)
    assert answer.status_code == status and says in answer.json()["errors"][0]["message"]
    with pytest.raises(CommandError, match=says):
        call_command("datasets", "validate", str(file(CSV)))
    with pytest.raises(CommandError, match=says):
        call_command("datasets", "import", "sent", str(file(CSV)), "--user", "member")
    assert not Dataset.objects.exists()
    assert [path for path in settings.FILE_UPLOAD_TEMP_DIR.rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("end", ["is_killed", "panics", "takes_memory", "computes"])
def test_end_of_a_reader_in_the_queue_is_reported_once(hostile, api, member, run_worker, end):
    answer = send(api(member), CSV + b"x,y\n" * services.AT_ONCE)
    assert answer.status_code == 202
    hostile(end)
    run_worker()
    task = DataTask.objects.get()
    assert task.status == Status.FAILURE and task.attempt == 1 and task.deaths == 0
    assert task.error and task.error["code"] == "reading_stopped" and ENDS[end][1] in task.error["message"]


def test_preview_of_a_file_whose_reader_dies_is_a_page(hostile, client, member):
    client.force_login(member)
    address = client.post("/datasets/new/", {"file": SimpleUploadedFile("sent.csv", CSV)}).url
    hostile("aborts")
    for answer in (client.get(address), client.post(address, {"encoding": "utf-8", "delimiter": ",", "again": "1"})):
        assert answer.status_code == 400 and "crashed" in answer.content.decode()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["aborts", "ends_its_process_group", "sleeps"])
def test_next_file_is_read_as_if_nothing_had_happened(hostile, settings, file, end):
    ours = settings.DATASET_READER
    hostile(end)
    with pytest.raises(sandbox.ReadingStoppedError):
        sandbox.read(file(CSV), "a.csv", limit=LIMIT)
    settings.DATASET_READER, settings.READER_SECONDS = ours, 60
    assert sandbox.read(file(CSV), "a.csv", limit=LIMIT).frame.height == 40


@pytest.mark.slow
def test_reader_ends_when_its_work_is_cancelled(hostile, settings, file):
    hostile("sleeps")
    settings.READER_SECONDS = 30

    def cancelled() -> None:
        raise InterruptedError

    started = time.monotonic()
    with pytest.raises(InterruptedError):
        sandbox.read(file(CSV), "a.csv", limit=LIMIT, waiting=cancelled)
    assert time.monotonic() - started < 20
    pid = int(file(CSV).with_suffix(".pid").read_text())
    while os.path.exists(f"/proc/{pid}"):  # nobody's child any more, it is gone once init has noticed
        assert time.monotonic() - started < 25
        time.sleep(0.05)


def test_reader_process_gets_no_secret(hostile, file, monkeypatch):
    hostile("raises_its_environment")
    monkeypatch.setenv("SECRET_KEY", "planted-secret")
    monkeypatch.setattr(sandbox, "_idle", [])
    with pytest.raises(InvalidError) as refusal:
        sandbox.read(file(CSV), "a.csv", limit=LIMIT)
    assert "PATH=" in str(refusal.value) and "planted-secret" not in str(refusal.value)


def test_errors_are_in_the_language_of_the_person_who_sent_the_file(hostile, file):
    hostile("raises_in_its_language")
    with translation.override("zh-hant"), pytest.raises(InvalidError) as refusal:
        sandbox.read(file(CSV), "a.csv", limit=LIMIT)
    assert not str(refusal.value).isascii()


def test_file_that_is_not_there_is_an_error_of_the_system(file):
    with pytest.raises(FileNotFoundError):
        sandbox.read(Path("/nowhere/a.csv"), "a.csv", limit=LIMIT)


def test_table_comes_back_as_it_was_read(file):
    content = 'text,a "name",é\none,1,x\nbroken\n"two\nlines",,ÿ\n'
    there, here = (
        where.read(file(content), "a.csv", limit=LIMIT, options=FileOptions(encoding="utf-8"))
        for where in (sandbox, readers)
    )
    assert there.frame.equals(here.frame) and there.frame.schema == here.frame.schema
    assert {**vars(there), "frame": 0} == {**vars(here), "frame": 0}


# --- values beyond a library's range ---------------------------------------------------------------------------------

BEYOND = {
    "date of 32 bits": pa.array([2**31 - 1, 0], pa.int32()).view(pa.date32()),
    "date of 64 bits": pa.array([2**60, 0], pa.int64()).view(pa.date64()),
    "time of the year 148108": pa.array([2**62, 0], pa.timestamp("us")),
    "time of the year 148108 in a zone": pa.array([2**62, 0], pa.timestamp("us", "Asia/Taipei")),
    "time of the year 146 million in a list": pa.array([[2**62], []], pa.list_(pa.timestamp("ms"))),
    "time before the year 1": pa.array([-(2**62), 0], pa.timestamp("us")),
}


@pytest.mark.parametrize("what", BEYOND)
@pytest.mark.parametrize("column", ["text", "label", "other"])
def test_value_out_of_range_is_refused_with_a_message(file, what, column):
    fields = {"text": pa.array(["a", "b"]), "label": pa.array(["x", "y"]), column: BEYOND[what]}
    with pytest.raises(InvalidError, match="out of range"):
        sandbox.read(file(as_parquet(**fields)), "a.parquet", limit=LIMIT)


def test_value_out_of_range_is_told_by_the_api_and_on_the_page(api, client, member):
    content = as_parquet(text=BEYOND["date of 32 bits"], label=pa.array(["x", "y"]))
    answer = send(api(member), content, "sent.parquet")
    assert answer.status_code == 400 and "out of range" in answer.json()["errors"][0]["message"]
    client.force_login(member)
    page = client.post("/datasets/new/", {"file": SimpleUploadedFile("a.parquet", content)})
    assert page.status_code == 400 and "out of range" in page.content.decode()


@pytest.mark.slow
def test_value_out_of_range_in_the_queue_is_refused_once_with_the_reason(api, member, run_worker):
    words = pa.array([os.urandom(40).hex() for _ in range(9000)])
    dates = pa.array([2**31 - 1] * 9000, pa.int32()).view(pa.date32())
    assert send(api(member), as_parquet(text=words, label=dates), "sent.parquet").status_code == 202
    run_worker()
    task = DataTask.objects.get()
    assert task.status == Status.FAILURE and task.attempt == 1
    assert task.error and task.error["code"] == "invalid" and "out of range" in task.error["message"]


@pytest.mark.parametrize(
    ("values", "written"),
    [
        (pa.array([b"abcd", "好".encode(), None]), ["abcd", "好", ""]),
        (pa.array([b"\xff\xfeab", b"a\x00b"]), ["\ufffd\ufffdab", "a\ufffdb"]),
        (pa.array([Decimal("1.10"), None]), ["1.10", ""]),
        (pa.array([Decimal("1.10")], pa.decimal256(50, 2)), ["1.10"]),
        (pa.array([date(2026, 1, 1), None]), ["2026-01-01", ""]),
        (pa.array([datetime(2026, 1, 1, 9, 30)], pa.timestamp("ns")), ["2026-01-01 09:30:00"]),
        (pa.array([datetime(2026, 1, 1, 1, 30, tzinfo=UTC)], pa.timestamp("ms", "Asia/Taipei")),
         ["2026-01-01 09:30:00+08:00"]),
        (pa.array([1], pa.time64("ns")), ["00:00:00"]),
        (pa.array([True, False, None]), ["true", "false", ""]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([1.0, 0.25, float("nan")]), ["1", "0.25", "NaN"]),
        (pa.array([{"a": date(2026, 1, 1), "b": b"x"}]), ['{"a": "2026-01-01", "b": "x"}']),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), ['[{"key": "k", "value": 1}]']),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["a", None], pa.string_view()), ["a", ""]),
    ],
    ids=str,
)  # fmt: skip
def test_parquet_values_are_written_as_people_write_them(file, values, written):
    table = sandbox.read(file(as_parquet(text=values)), "a.parquet", limit=LIMIT)
    assert table.frame["text"].to_list() == written


@pytest.mark.slow
def test_panic_of_native_code_anywhere_in_the_queue_is_reported_once(stored, member, run_worker, monkeypatch):
    from datasets_app import jobs

    from . import hostile

    monkeypatch.setitem(jobs._WORK, DataTask.Kind.NOISE, lambda task, progress: hostile.panics())
    task = services.submit(user=member, kind=DataTask.Kind.NOISE, name="moods", version=stored)
    run_worker()
    task.refresh_from_db()
    assert task.status == Status.FAILURE and task.error and task.error["code"] == "unexpected" and task.attempt == 1


# --- small packed, large unpacked ------------------------------------------------------------------------------------

EXPLODING = {
    "empty objects in gzip": ("a.json.gz", gzip.compress(b"[" + b"{}," * 300_000 + b"{}]", mtime=0)),
    "rows of two words": ("a.parquet", as_parquet(text=pa.array(["a", "b"] * 100_000), label=pa.array(["x", "y"] * 100_000))),
    "booleans": ("a.parquet", as_parquet(text=pa.array([True, False] * 100_000), label=pa.array([True, False] * 100_000))),
    "one long text for all rows": ("a.parquet", as_parquet(text=pa.array(["long " * 2000] * 2000), label=pa.array(["x", "y"] * 1000))),
    "one long name in each row": ("a.parquet", as_parquet(text=pa.array([{"n" * 9000: i} for i in range(999)]))),
    "commas": ("a.csv", b"text,label\n" + b",\n" * 40_000),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", EXPLODING)
def test_file_that_is_small_only_when_packed_goes_to_the_data_worker(api, client, member, what):
    filename, content = EXPLODING[what]
    assert len(content) < services.AT_ONCE
    assert send(api(member), content, filename).status_code == 202
    client.force_login(member)
    address = client.post("/datasets/new/", {"file": SimpleUploadedFile(filename, content)})
    if address.status_code == 302:
        stored = client.post(address.url, {"name": "page", "encoding": "utf-8"})
        assert stored.status_code == 400 or "/datasets/tasks/" in stored.url
    assert not Version.objects.exists()


def test_small_packed_file_is_stored_at_once(api, member):
    assert send(api(member), gzip.compress(CSV, mtime=0), "a.csv.gz").status_code == 201


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", as_parquet(text=pa.array([True] * 100_000), label=pa.array([True] * 100_000))),
        ("a.csv", b"text,label\n" + b",\n" * 200_000),
        ("a.jsonl", b'{"a":1,"b":2}\n' * 70_000),
        ("a.json", b'{"a": [' + b"1," * 70_000 + b'1], "b": [' + b"1," * 70_000 + b"1]}"),
    ],
)
def test_more_cells_than_one_for_eight_bytes_of_the_limit_are_refused(file, name, content):
    with pytest.raises(FileTooLargeError, match="131,072 cells"):
        readers.read(file(content), name, limit=1 << 20)


def test_few_columns_of_many_are_read_though_all_would_be_too_much(file):
    names = ",".join(f"c{i}" for i in range(100))
    content = f"text,label,{names}\n" + ("a,x" + ",1" * 100 + "\n") * 2000
    with pytest.raises(FileTooLargeError):
        readers.read(file(content), "a.csv", limit=1 << 20)
    assert readers.read(file(content), "a.csv", limit=1 << 20, only=["text", "label"]).frame.height == 2000


def test_first_rows_take_bounded_memory(file, monkeypatch):
    monkeypatch.setattr(readers, "HEAD_BYTES", 1 << 20)
    rows = as_parquet(text=pa.array(["long " * 2000] * 1000), label=pa.array(["x", "y"] * 500))
    table = readers.read(file(rows), "a.parquet", limit=LIMIT, head=True)
    assert 1 <= table.frame.height < 200 and not table.complete


def test_first_rows_of_a_json_list_are_read_without_the_others(file):
    content = '[{"text": "a", "label": 1.0}, ' * 1 + '{"text": "b", "label": [1, 2]},' * 3000 + "no JSON"
    table = readers.read(file(content), "a.json", limit=LIMIT, head=True)
    assert table.frame.height == 2000 and not table.complete
    with pytest.raises(InvalidError, match="not valid JSON"):
        readers.read(file(content), "a.json", limit=LIMIT)


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
def test_json_list_is_the_same_however_it_is_cut_into_pieces(file, monkeypatch, piece):
    monkeypatch.setattr(readers, "CHUNK", piece)
    content = (
        ' [ {"text": "a\\u597d", "label": 12345.5} ,\n{"text":"[,]","label":-1e5},7,{"text": null, "label": true}]\n '
    )
    table = readers.read(file(content), "a.json", limit=LIMIT)
    assert table.frame.select("text", "label").rows() == [("a好", "12345.5"), ("[,]", "-100000"), ("", "true")]
    assert table.broken_examples == [{"row": 3, "text": "7"}]
    for wrong in ("[", '[{"a": 1}', '[{"a": 1},]', '[{"a": 1}] x', '[{"a": 1} {"a": 2}]', "[,]"):
        with pytest.raises(InvalidError, match="not valid JSON"):
            readers.read(file(wrong), "a.json", limit=LIMIT)


# --- nothing but broken records --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text,label\n" + b"a,b\n" * 4000 + b"a,b,c\n" * 150_000),
        ("a.json", b"[" + b"9," * 150_000 + b"9]"),
        ("a.json", b"[" + b"[]," * 150_000 + b"[]]"),
        ("a.jsonl", b"nonsense\n" * 150_000),
    ],
)
def test_file_of_broken_records_is_refused_early(file, name, content):
    with pytest.raises(InvalidError, match=r"More than half of the first 10[04],001 records"):
        readers.read(file(content), name, limit=LIMIT)


@pytest.mark.slow
def test_many_broken_records_among_more_good_ones_are_counted(file):
    content = b"text,label\n" + (b"good,x\ngood,y\nbad\n") * 101_000
    table = readers.read(file(content), "a.csv", limit=LIMIT)
    assert table.frame.height == 202_000 and table.broken_lines == 101_000
    assert table.frame["\x00row"].to_list()[:4] == [1, 2, 4, 5]


# --- many at once ----------------------------------------------------------------------------------------------------


def test_upload_goes_to_the_data_worker_while_others_are_checked(api, client, member):
    for _ in range(upload_storage.CHECKS_AT_A_TIME):
        upload_storage.check_slots.acquire()
    try:
        first = send(api(member), CSV, **{"Idempotency-Key": "k"})
        assert first.status_code == 202
    finally:
        for _ in range(upload_storage.CHECKS_AT_A_TIME):
            upload_storage.check_slots.release()
    again = send(api(member), CSV, **{"Idempotency-Key": "k"})
    assert again.status_code == 202 and again.json()["task_id"] == first.json()["task_id"]
    assert not Version.objects.exists() and DataTask.objects.count() == 1


def test_page_gets_503_with_retry_after_while_all_readers_are_busy(client, member, settings, monkeypatch):
    monkeypatch.setattr(sandbox, "_WAIT_SECONDS", 0.1)
    client.force_login(member)
    for _ in range(sandbox.AT_A_TIME):
        sandbox._turns.acquire()
    try:
        answer = client.post("/datasets/new/", {"file": SimpleUploadedFile("a.csv", CSV)})
    finally:
        for _ in range(sandbox.AT_A_TIME):
            sandbox._turns.release()
    assert answer.status_code == 503 and answer["Retry-After"] == "5"
    assert not list(uploads._root().iterdir())
