"""Files, tests and commands named in the documentation exist."""

import re
from itertools import chain
from pathlib import Path

import pytest
from django.core.management import get_commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")
TEST = re.compile(r"`([\w/.]*test_\w+\.py)(?:::(\w+))?`")
MAKE = re.compile(r"(?:^ {4}|`|^)make ([a-z][a-z0-9-]+)", re.MULTILINE)
MANAGE = re.compile(r"manage\.py ([a-z_]+)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_links_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pages
def test_named_tests_are_there(page: Path) -> None:
    missing = [name for file, name in TEST.findall(page.read_text(encoding="utf-8")) if not _test_is_there(file, name)]
    assert missing == []


@pages
def test_named_commands_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(MAKE.findall(text)) - targets == set()
    assert set(MANAGE.findall(text)) - set(get_commands()) == set()


def test_every_page_is_reached_from_the_readme() -> None:
    linked = chain.from_iterable(LINK.findall(page.read_text(encoding="utf-8")) for page in PAGES)
    names = {Path(link).name for link in linked}
    assert {page.name for page in PAGES} - names == set()


def _test_is_there(file: str, name: str) -> bool:
    files = [path for path in ROOT.glob("*/tests/**/test_*.py") if path.as_posix().endswith(f"/{file}")]
    return any(f"def {name}(" in path.read_text(encoding="utf-8") for path in files) if name else bool(files)
