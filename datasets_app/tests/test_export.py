"""What is downloaded is what was stored: as CSV, JSONL and Parquet, from page, API and command."""

import io
import json
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from django.core.management import call_command

from datasets_app import services
from datasets_app.formula_quoting import unquote_formulas
from datasets_app.models import Dataset
from datasets_app.versions import export
from testing.datasets import store_dataset

FORMATS = ["csv", "jsonl", "parquet"]
HARD = [
    'he said "no, never"; and left',
    "two\nlines, one text",
    "這家餐廳的服務很好，下次再來",
    "tab\there | bar",
    "emoji 👩‍👧 and é",
    "NULL",
    "007",
    "'quoted' words",
]
FORMULAS = ["=1+1 is two", "+49 is Germany", "-5 degrees outside", "@home all day", "'=already quoted"]


@pytest.fixture
def hard(member: Any, file: Any) -> Any:
    """A version with given splits, and texts that formats get wrong; three rows of each."""
    rows = [
        {"text": f"{text} {i}", "label": ("good", "-1")[i % 2], "split": ("train", "test", "eval")[i % 3]}
        for i in range(3)
        for text in [*HARD, *FORMULAS]
    ]
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return store_dataset(member, "hard", file(content, "a.jsonl"))


def stored_rows(version: Any) -> list[Any]:
    return pl.read_parquet(version.path).select("text", "label", "split").rows()


def content_of(response: Any) -> bytes:
    return b"".join(response.streaming_content)


@pytest.mark.medium
@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_file_that_is_uploaded_again_gives_the_same_version(
    api: Any, member: Any, file: Any, hard: Any, file_format: str
) -> None:
    content = content_of(api(member).get(f"/api/datasets/hard/download?format={file_format}"))
    again = services.create_version(user=member, name="again", file=file(content), filename=f"a.{file_format}")
    assert again.hash == hard.hash and stored_rows(again) == stored_rows(hard)


def test_csv_that_is_uploaded_again_gives_the_same_version_and_says_so(
    api: Any, member: Any, file: Any, hard: Any
) -> None:
    content = content_of(api(member).get("/api/datasets/hard/download"))
    again = services.create_version(user=member, name="again", file=file(content), filename="a.csv")
    assert again.hash == hard.hash and stored_rows(again) == stored_rows(hard)
    quoted = content.count(b"'=") + content.count(b"'+") + content.count(b"'-") + content.count(b"'@")
    assert {"code": "formula_marks", "count": quoted} in again.source["notes"]


@pytest.mark.medium
def test_apostrophes_of_other_files_stay(api: Any, member: Any, file: Any, hard: Any) -> None:
    content = content_of(api(member).get("/api/datasets/hard/download"))
    other = content.replace(b'"text",label', b"text,label", 1)  # as a spreadsheet saves it
    again = services.create_version(user=member, name="again", file=file(other), filename="a.csv")
    frame = pl.read_parquet(again.path)
    assert frame.filter(pl.col("text").str.contains("^'[=+@-]|^''=")).height == 3 * len(FORMULAS)
    unquoted = frame.with_columns(unquote_formulas("text"), unquote_formulas("label"))
    assert unquoted.select("text", "label", "split").rows() == stored_rows(hard)


def test_csv_opens_in_a_spreadsheet(client: Any, member: Any, hard: Any) -> None:
    client.force_login(member)
    response = client.get("/datasets/hard/download/?format=csv")
    content = content_of(response)
    assert content.startswith('\ufeff"text",label,split\n'.encode()) and "這家餐廳".encode() in content
    assert b"\n'=1+1 is two 0,good,train\n" in content and b"\n=" not in content and b",-1," not in content
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="hard-1.csv"'


@pytest.mark.parametrize("file_format", FORMATS)
def test_download_is_filtered_as_the_rows_are(api: Any, member: Any, hard: Any, file_format: str) -> None:
    query = f"?format={file_format}&label=good&split=train&q={quote('餐廳')}"
    content = content_of(api(member).get(f"/api/datasets/hard/download{query}"))
    rows = api(member).get(f"/api/datasets/hard/rows{query}").json()["results"]
    readers: dict[str, Any] = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}
    read = readers[file_format](io.BytesIO(content))
    assert read["text"].to_list() == [row["text"] for row in rows] == ["這家餐廳的服務很好，下次再來 0"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_rows_are_a_valid_file(api: Any, member: Any, stored: Any, file_format: str) -> None:
    content = content_of(api(member).get(f"/api/datasets/moods/download?format={file_format}&label=none"))
    if file_format == "jsonl":
        assert content == b""
    else:
        read = pl.read_csv if file_format == "csv" else pl.read_parquet
        assert read(io.BytesIO(content)).columns == ["text", "label"]


def test_name_beyond_ascii_is_kept(api: Any, member: Any, stored: Any) -> None:
    Dataset.objects.update(name="心情")  # from before the rule for names
    response = api(member).get(f"/api/datasets/{quote('心情')}/download")
    assert response["Content-Disposition"] == f"attachment; filename*=utf-8''{quote('心情-1.csv')}"


def test_download_is_for_those_who_may_see_the_dataset(api: Any, client: Any, stranger: Any, stored: Any) -> None:
    assert client.get("/api/datasets/moods/download").status_code == 401
    assert api(stranger).get("/api/datasets/moods/download").status_code == 404


def test_unknown_format_is_refused_by_its_field(api: Any, member: Any, stored: Any) -> None:
    answer = api(member).get("/api/datasets/moods/download?format=xlsx")
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "format"
    assert api(member).get("/api/datasets/moods/download?version=9").status_code == 404


def test_command_writes_a_new_file(stored: Any, tmp_path: Any, capsys: Any) -> None:
    target = tmp_path / "moods.parquet"
    options = ["--output", str(target), "--user", "member"]
    call_command("datasets", "export", "moods@1", "--format", "parquet", "--label", "good", *options)
    assert pl.read_parquet(target)["label"].to_list() == ["good"] * 200 and "200 rows" in capsys.readouterr().out
    with pytest.raises(Exception, match="File exists"):
        call_command("datasets", "export", "moods", *options)


@pytest.mark.medium
def test_pages_link_to_the_download(client: Any, member: Any, stored: Any) -> None:
    client.force_login(member)
    for page in ("/datasets/", "/datasets/moods/", "/datasets/moods/rows/?label=good&page=1"):
        assert "/datasets/moods/download/?" in client.get(page).content.decode()
    rows = client.get("/datasets/moods/rows/?label=good&q=train&page=2").content.decode()
    assert "/datasets/moods/download/?label=good&amp;q=train&amp;version=1&amp;format=csv" in rows


@pytest.mark.slow
def test_large_version_is_written_part_by_part(member: Any, file: Any) -> None:
    lines = [f"the story of number {i} and its square {i * i},{i % 2}" for i in range(25_000)]
    content = "\n".join(['"text",label', *lines])
    version = services.create_version(user=member, name="large", file=file(content), filename="a.csv")
    assert version.path.is_dir()
    exported = export.export(version, "csv", export.RowFilter())
    assert exported.file.read().decode("utf-8-sig").split("\n") == [*content.split("\n"), ""]
