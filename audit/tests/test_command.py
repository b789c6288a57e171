"""manage.py audit list reads what the page shows."""

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from audit.services import record


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("audit", "list", *arguments, stdout=out)
    return out.getvalue()


def test_entries_are_listed_newest_first_and_filtered(member: Any, admin: Any) -> None:
    record("dataset.store", user=member)
    record("model.share", user=admin)
    newest, first = run("--limit", "2").splitlines()[1:]
    assert "model.share" in newest and "admin" in newest and "dataset.store" in first
    (entry,) = json.loads(run("--user", "member", "--action", "dataset", "--json"))
    assert entry["user"] == "member" and entry["result"] == "ok"


def test_bad_date_is_refused_as_misuse(db: None) -> None:
    with pytest.raises(CommandError) as refused:
        run("--since", "yesterday")
    assert refused.value.returncode == 2
