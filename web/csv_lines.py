"""Lines of CSV files, whose cells no spreadsheet executes as formulas."""

import csv
import io
import json
from collections.abc import Iterable
from datetime import datetime

BOM = "\ufeff"  # without it Excel takes UTF-8 for the encoding of the machine
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_line(values: Iterable[object]) -> str:
    """Return the values as one line, with its end."""
    line = io.StringIO()  # csv writes to files only
    csv.writer(line).writerow([cell_text(value) for value in values])
    return line.getvalue()


def cell_text(value: object) -> str:
    """Return a value as text that no spreadsheet executes as a formula. A number is none, also with a minus."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, datetime):
        text = value.isoformat()
    else:
        text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
