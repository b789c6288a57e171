"""Print tables a row at a time, and write the same to results.md and results.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Column = tuple[str, Callable[[dict[str, Any]], str]]


def number(key: str, decimals: int = 0, unit: str = "") -> Callable[[dict[str, Any]], str]:
    """Return what writes a row's number; empty where the row has none."""
    return lambda row: "" if row.get(key) is None else f"{row[key]:,.{decimals}f}{unit}"


def text(key: str) -> Callable[[dict[str, Any]], str]:
    """Return what writes a row's text; a bar would end the cell."""
    return lambda row: str(row.get(key, "")).replace("|", "/")


class Report:
    """Everything that a run has printed and measured so far; each addition is on the disk at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.results: dict[str, Any] = {}
        self._columns: list[Column] = []
        self._section = ""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").unlink(missing_ok=True)

    def say(self, line: str = "") -> None:
        """Print a line."""
        print(line, flush=True)
        self.lines.append(line)
        (self.folder / "results.md").write_text("\n".join(self.lines) + "\n", encoding="utf-8")

    def record(self, name: str, value: Any) -> None:
        """Keep a value for results.json."""
        self.results[name] = value
        (self.folder / "results.json").write_text(json.dumps(self.results, indent=1), encoding="utf-8")

    def start(self, section: str, title: str, columns: list[Column]) -> None:
        """Begin a table."""
        self._section, self._columns = section, columns
        self.record(section, [])
        self.say()
        self.say(f"## {title}")
        self.say()
        self.say("| " + " | ".join(head for head, _ in columns) + " |")
        self.say("|" + "---|" * len(columns))

    def row(self, row: dict[str, Any]) -> None:
        """Add a row to the table."""
        self.say("| " + " | ".join(write(row) for _, write in self._columns) + " |")
        self.record(self._section, [*self.results[self._section], row])
