"""Make the rows of conversations: each as JSON in the engine's canonical form, and a count of what was left out and why."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.conversations import Stored, clean_json
from datasets_app.reading.characters import clean
from datasets_app.reading.chat_columns import parse_messages
from datasets_app.reading.columns import ColumnChoice
from datasets_app.reading.stored_rows import Rows, is_invisible
from datasets_app.reading.table import ROW, Table, no_rows
from datasets_app.reading_descriptions import describe_reason
from datasets_app.versions.canonical import SLICE
from engine.data.conversations import UnusableRowError, from_text, read_conversation
from engine.data.preferences import read_preference
from web.errors import InvalidError

_MOST_EXAMPLES = 5  # of each reason

Cells = dict[str, str]


@dataclass
class _Collected:
    """What has been read so far."""

    rows: list[tuple[str, int]] = field(default_factory=list)  # text, number
    splits: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by reason
    cut: int = 0  # conversations whose last messages nobody answers

    def leave_out(self, reason: str, row: int, text: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        if reason in ("other_split", "no_text"):  # wanted so, and no fault; an empty cell shows nothing
            return
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MOST_EXAMPLES:
            examples.append({"row": row, "text": clean(text[:200]), "label": ""})


def select_conversations(table: Table, choice: ColumnChoice) -> Rows:
    """Return the rows of conversations to store; those that cannot be used are counted by their reason."""
    collected = _Collected()
    read_messages = _reader(table, choice)
    for part in table.frame.select(*choice.columns, ROW).iter_slices(SLICE):
        for cells in part.iter_rows(named=True):
            _add(collected, cells, choice, read_messages)
    frame = pl.DataFrame(collected.rows, schema={"text": pl.String, "row": pl.UInt32}, orient="row")
    frame = frame.select("text", pl.lit("").alias("label"), "row")
    if choice.split:
        frame = frame.with_columns(pl.Series("split", collected.splits, dtype=pl.String))
    rows = Rows(frame, choice, choice.kind, table.frame.height + sum(table.left_out.values()))
    rows.left_out = table.left_out | collected.left_out
    rows.unusable = collected.examples
    if collected.cut:
        rows.notes.append({"code": "unanswered_messages", "count": collected.cut})
    return rows


def _add(collected: _Collected, cells: Any, choice: ColumnChoice, read_messages: Callable[[Cells], Any]) -> None:
    """Read one row; keep its conversation, or count why it is left out."""
    split = choice.split_values.get(cells[choice.split].strip().lower(), "") if choice.split else ""
    shown = next((cells[name] for names in choice.roles.values() for name in names if cells[name]), "")
    if choice.split and not split:
        return collected.leave_out("other_split", cells[ROW], shown)
    try:
        messages = read_messages(cells)
        if choice.kind == "preferences":
            stored: Stored = read_preference(*messages)
        elif choice.kind == "text":
            stored = from_text(messages)
        else:
            stored = read_conversation(messages)
            collected.cut += isinstance(messages, list) and len(messages) > len(stored)
    except UnusableRowError as error:
        return collected.leave_out(error.reason, cells[ROW], shown)
    collected.rows.append((clean_json(stored), cells[ROW]))
    collected.splits.append(split)
    return None


def _reader(table: Table, choice: ColumnChoice) -> Callable[[Cells], Any]:
    """Return the function that makes the messages of a row's cells; of preferences those of prompt, chosen and rejected.

    Of a plain text it makes the text.
    """
    if choice.kind == "text":
        return lambda cells: "\n".join(cells[name] for name in choice.texts if is_visible(cells[name]))
    roles = choice.roles
    if columns := roles.get("messages"):
        return lambda cells: parse_messages(cells[columns[0]]) or cells[columns[0]]
    prompts, answers, systems = (roles.get(role, ()) for role in ("prompt", "answer", "system"))
    if "chosen" in roles:
        return lambda cells: (
            [
                *_system_message([cells[name] for name in systems]),
                *(_messages_of([cells[name] for name in prompts], "user") if prompts else ()),
            ],
            _messages_of([cells[name] for name in roles["chosen"]], "assistant"),
            _messages_of([cells[name] for name in roles["rejected"]], "assistant"),
        )
    return lambda cells: [
        *_system_message([cells[name] for name in systems]),
        *_messages_of([cells[name] for name in prompts], "user"),
        *_messages_of([cells[name] for name in answers], "assistant"),
    ]


def _system_message(texts: list[str]) -> list[dict[str, Any]]:
    """Return the system message, none where its cells are empty."""
    text = _join(texts)
    return [{"role": "system", "content": text}] if text else []


def _messages_of(texts: list[str], role: str) -> list[dict[str, Any]]:
    """Return the messages in the cells of a prompt or an answer: a list of messages, or one message with their text."""
    messages = parse_messages(texts[0]) if len(texts) == 1 else None
    if messages is not None:
        return messages
    text = _join(texts)
    if not text:
        raise UnusableRowError("no_answer" if role == "assistant" else "no_prompt")
    return [{"role": role, "content": text}]


def _join(texts: list[str]) -> str:
    return "\n".join(text.strip() for text in texts if is_visible(text))


def is_visible(text: str) -> bool:
    """Return whether a text has a character that anybody sees."""
    return bool(re.search("[!-~]", text)) or not is_invisible(pl.Series([text])).all()


def refuse_no_conversations(rows: Rows) -> None:
    """Raise InvalidError if no row is a conversation; it says what is wrong with the rows."""
    if not rows.frame.is_empty():
        return
    if rows.kind == "text":
        raise no_rows()
    reasons = ", ".join(f"{count} {describe_reason(reason)}" for reason, count in rows.left_out.items())
    message = _(
        "No row is a conversation with an answer. Nothing was stored. Rows left out: %(reasons)s. Check that the right "
        "columns are chosen, and that each conversation has a message of the assistant."
    )
    raise InvalidError(message % {"reasons": reasons or "0"}, field="column_roles")
