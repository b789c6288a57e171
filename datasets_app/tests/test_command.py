"""manage.py datasets does the same as the pages and the API."""

import io
import json

import pytest
from django.core.management import CommandError, call_command


def run(*arguments):
    out = io.StringIO()
    call_command("datasets", *map(str, arguments), stdout=out)
    return out.getvalue()


@pytest.mark.medium
def test_import_and_list_can_answer_in_json(member, file, good_csv):
    path = file(good_csv, "moods.csv")
    assert json.loads(run("import", "moods", path, "--user", "member", "--json"))["rows"] == 400
    assert json.loads(run("list", "--user", "member", "--json"))[0]["name"] == "moods"
    assert "moods@1" in run("list", "--user", "member")


def test_validate_reports_and_stores_nothing(member, file):
    path = file("text,label\na <b>bold</b> one,x\nplain one,y\n", "a.csv")
    assert "markup" in {f["code"] for f in json.loads(run("validate", path, "--json"))["findings"]}
    assert "HTML" in run("validate", path)
    assert run("list", "--user", "member").strip() == ""


def test_bad_file_is_a_one_line_error(member, file, tmp_path):
    with pytest.raises(CommandError, match="empty"):
        run("validate", file(b"", "a.csv"))
    with pytest.raises(CommandError, match="No such file"):
        run("validate", tmp_path / "nowhere.csv")
