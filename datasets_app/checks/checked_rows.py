"""What the checks get, the rows with a few numbers of each, and what they yield."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from datasets_app.checks.languages import LanguageSurvey
from datasets_app.conversations import summarise

EXAMPLES = 5
Severity = Literal["error", "warning", "info"]


@dataclass
class CheckResult:
    """One line of the report. Rows count from 1 after the header."""

    code: str
    severity: Severity
    count: int
    examples: list[dict[str, Any]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # all rows concerned, for the fix


@dataclass(frozen=True)
class CheckedRows:
    """The rows, and what was computed of each before the checks run.

    `facts` has a line for each row: row, label, split (where given), `exact` (hash of text and label), `same` and `group` (see
    engine.data.near_duplicates), and a flag for each of TEXT_CODES.
    """

    frame: pl.DataFrame
    facts: pl.DataFrame
    languages: LanguageSurvey
    kind: str = "labels"  # see `Version.Kind`

    def repeated(self, column: str) -> pl.DataFrame:
        """Return the facts whose value in the column is not unique: few, so that comparing them takes little memory."""
        return self.facts.filter(pl.col(column).is_duplicated())

    def results(
        self, code: str, severity: Severity, facts: pl.DataFrame, extra: dict[str, str] | None = None
    ) -> Iterator[CheckResult]:
        """Yield the result for these facts, if there are any. See `examples` for `extra`."""
        if facts.height:
            yield CheckResult(code, severity, facts.height, self.examples(facts, extra), facts["row"].to_list())

    def examples(
        self, facts: pl.DataFrame, extra: dict[str, str] | None = None, most: int = EXAMPLES
    ) -> list[dict[str, Any]]:
        """Return the first rows as the report shows them, with further fields: {field: column of the facts}."""
        extra = extra or {}
        first = facts.head(most).select("row", *{column for column in extra.values() if column != "split"})
        rows = first.join(self.frame, on="row", how="left", maintain_order="left")
        examples = []
        for row in rows.iter_rows(named=True):
            # Of a conversation, whose text is JSON, what is asked and answered.
            shown = summarise(row["question"], row["answers"]) if "question" in row else row["text"]
            example = {"row": row["row"], "text": shown[:200], "label": row["label"]}
            examples.append(example | {name: row[column] for name, column in extra.items()})
        return examples
