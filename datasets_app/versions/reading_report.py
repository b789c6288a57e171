"""Tell people and programs how the file of a version was read."""

from typing import Any

from datasets_app import reading_descriptions
from datasets_app.models import Version
from datasets_app.reading.options import ROLES


def reading_report(version: Version) -> dict[str, Any]:
    """Return how the file of a version was read; nothing that was lost or changed on the way is missing here.

    `columns` are names, a list where several make one text, or numbers from 1 where the file has no header.
    """
    source = version.source
    has_header = source.get("header", True)
    columns = source.get("columns") or {
        "text": source.get("text_column"),
        "label": source.get("label_column"),
        "split": source.get("split_column"),
    }
    skipped = source.get("skipped", 0)
    return {
        "format": source.get("kind", ""),
        "encoding": source.get("encoding", ""),
        "delimiter": source.get("delimiter", ""),
        "quote": source.get("quote", ""),
        "header": has_header,
        "sheet": source.get("sheet", ""),
        "columns": {
            role: _column(columns[role], has_header=has_header) if columns.get(role) else None
            for role in (
                *(ROLES if version.is_chat and version.kind != "text" else ("text", "text_pair", "label")),
                "split",
            )
        },
        "rows_read": source.get("rows_read", version.rows + skipped),
        "rows_left_out": source.get("left_out", {"no_text": skipped} if skipped else {}),
        "lines": source.get("lines", {}),
        "broken_lines": source.get("broken_lines", 0),
        "notes": [reading_descriptions.describe_note(note) for note in source.get("notes", [])],
    }


def _column(names: Any, *, has_header: bool) -> Any:
    """Return a name or a number; a list of several; None for no column."""
    if isinstance(names, list | tuple):
        listed = [_column(name, has_header=has_header) for name in names]
        return listed if len(listed) != 1 else listed[0]
    number = str(names or "").removeprefix("column ")
    return int(number) if not has_header and number.isdigit() else names
