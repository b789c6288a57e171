"""The Traditional Chinese catalogue: what there is to translate, and the file that Django reads.

`python -m lorasite.catalogue` brings locale/zh_Hant up to date: new sentences are added (empty, to be translated), gone ones
removed, and the .mo written. Babel does it, so that no gettext is needed on the machine.
"""

import io
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
PO = ROOT / "locale" / "zh_Hant" / "LC_MESSAGES" / "django.po"
HEAD, BEGUN = (
    "# Lorasite in Traditional Chinese. Brought up to date by: python -m lorasite.catalogue",
    datetime(2026, 11, 24),
)
APPS = ("accounts", "audit", "datasets_app", "experiments", "inference", "lorasite", "monitoring", "training", "work")
KEYWORDS: dict[str, tuple[int, ...] | None] = {
    "_": None, "gettext": None, "gettext_lazy": None, "gettext_noop": None, "ngettext": (1, 2), "ngettext_lazy": (1, 2),
}  # fmt: skip
# What Django makes of a template is Python in its calls only; everything else is blotted out.
CALL = re.compile(r"""(?:gettext|ngettext|\b_)\((?:[^()'"]|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")*\)""")


def sources() -> Iterator[tuple[Path, str]]:
    """Every Python file of the apps, and the calls that Django makes of every template."""
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            if "tests" not in path.parts and path.name != "catalogue.py":
                yield path, path.read_text(encoding="utf-8")
    for path in sorted(p for p in (ROOT / "templates").rglob("*") if p.suffix in (".html", ".txt")):
        text = templatize(path.read_text(encoding="utf-8"), origin=str(path))
        yield path, "\n".join(CALL.findall(text))


def wanted() -> Catalog:
    """What the code says today, without translations."""
    found = Catalog(locale="zh_Hant", header_comment=HEAD, creation_date=BEGUN, revision_date=BEGUN, fuzzy=False)
    for _path, text in sources():
        for _line, message, _comments, _context in extract("python", io.BytesIO(text.encode()), keywords=KEYWORDS):
            if message and message[0]:
                found.add(message)
    return found


def stored() -> Catalog:
    with PO.open("rb") as file:
        return read_po(file, locale="zh_Hant")


def compiled(catalog: Catalog) -> bytes:
    out = io.BytesIO()
    write_mo(out, catalog)
    return out.getvalue()


def update() -> int:
    """Write both files; the number of sentences that wait for a translation."""
    catalog, old = wanted(), stored() if PO.exists() else Catalog()
    for message in catalog:
        if message.id and (known := old.get(message.id)):
            message.string = known.string
    PO.parent.mkdir(parents=True, exist_ok=True)
    with PO.open("wb") as file:
        write_po(file, catalog, sort_output=True, no_location=True, omit_header=False, width=120)
    PO.with_suffix(".mo").write_bytes(compiled(stored()))
    return sum(1 for message in catalog if message.id and not is_translated(message))


def is_translated(message: Message) -> bool:
    return all(message.string) if isinstance(message.string, tuple) else bool(message.string)


if __name__ == "__main__":
    sys.exit(f"{missing} sentences have no translation yet." if (missing := update()) else 0)
