"""Read spreadsheets (.xlsx, .xls, .xlsb, .ods) into a table of strings."""

import csv
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from datasets_app.reading.archives import head_of, refuse_cells, zip_names
from datasets_app.reading.table import cell, no_rows
from web.errors import InvalidError

_OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def is_workbook(file: Path) -> bool:
    """Return whether a file is a spreadsheet, by its content."""
    head = head_of(file, 8)
    if head == _OLD_EXCEL:
        return True
    names = zip_names(file) if head.startswith(b"PK") else []
    return any(name.startswith("xl/") for name in names) or ("content.xml" in names and "mimetype" in names)


def sheet_to_csv(file: Path, target: Path, sheet: str, limit: int) -> tuple[str, list[str]]:
    """Write a sheet (by default the first with cells) as CSV; return its name and those of all sheets with cells.

    A date is written as 2026-01-31, a number as people type it. Raises InvalidError for a damaged or protected workbook.
    """
    import python_calamine  # needed for spreadsheets alone

    try:
        workbook = python_calamine.load_workbook(str(file))
        sheets = {name: workbook.get_sheet_by_name(name) for name in workbook.sheet_names}
        filled = [name for name, content in sheets.items() if content.height and content.width]
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        message = _(
            "This workbook cannot be read: %(why)s. Nothing was stored. Save it again without a password, or as CSV."
        )
        raise InvalidError(message % {"why": str(error)[:120]}, field="file") from None
    if sheet and sheet not in sheets:
        message = _("This workbook has no sheet “%(sheet)s”. It has: %(names)s.")
        facts = {"sheet": sheet[:60], "names": ", ".join(f"“{name}”" for name in sheets)}
        raise InvalidError(message % facts, field="sheet")
    if not filled:
        raise no_rows()
    chosen = sheet or filled[0]
    refuse_cells(sheets[chosen].height * sheets[chosen].width, limit)
    with open(target, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        for row in sheets[chosen].iter_rows():
            writer.writerow([_to_text(value) for value in row])
    return chosen, filled


def _to_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        is_day = value.time() == time(0)
        return str(value.date() if is_day else value)
    if isinstance(value, date | time | timedelta):
        return str(value)
    return cell(value)
