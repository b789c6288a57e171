"""Read preferences from the rows of a data file: a prompt with a chosen and a rejected answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from engine.config_sections import DataSection
from engine.data.conversations import UnusableRowError
from engine.data.preferences import Preference, read_preference
from engine.errors import ColumnMissingError, DataUnreadableError
from engine.sentences import Sentence, gettext_noop

Row = dict[str, Any]
ANSWER_COLUMNS = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
RATED = {"prompt", "completion", "label"}  # the columns of answers that are rated good or bad


def preference_reader(records: list[Row], config: DataSection) -> Callable[[Row], Preference]:
    """Return the function that reads a row's preference. Raises ColumnMissingError, DataUnreadableError for rated answers."""
    columns = {name: None for record in records for name in record}
    pair = next((pair for pair in ANSWER_COLUMNS if columns.keys() >= {*pair}), None)
    if pair is None:
        if columns.keys() >= RATED:
            raise _rated_answers_error()
        first = next((record["text"] for record in records if record.get("text")), None)
        if isinstance(first, str) and first.startswith('{"prompt"'):  # whole preferences, as the platform stores them
            return _read_stored
        raise ColumnMissingError(
            Sentence(
                gettext_noop("The data have no columns chosen and rejected. Their columns are: {columns}."),
                columns=", ".join(columns),
            ),
            field="data.dataset_name",
        )

    def read(record: Row) -> Preference:
        prompt, chosen, rejected = (record.get(name) for name in (config.text_column, *pair))
        return _usable(
            read_preference(_messages(prompt, "user"), _messages(chosen, "assistant"), _messages(rejected, "assistant"))
        )

    return read


def _read_stored(record: Row) -> Preference:
    """Return a row's preference, as `to_json` wrote it."""
    content = json.loads(record["text"])
    return _usable(read_preference(content["prompt"], content["chosen"], content["rejected"]))


def _usable(preference: Preference) -> Preference:
    """Return a preference whose answers differ."""
    if preference["chosen"] == preference["rejected"]:
        raise UnusableRowError("same_answers")
    return preference


def _messages(value: object, role: str) -> list[Any]:
    """Return a list of messages, which may be JSON, as it is, and a text as one message."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = None
        are_messages = isinstance(parsed, list) and all(
            isinstance(part, Mapping) and ("role" in part or "from" in part) for part in parsed
        )
        if parsed and are_messages:  # an answer may itself be a list in JSON
            return list(parsed)
    if isinstance(value, list):
        return value
    text = "" if value is None else str(value)
    return [{"role": role, "content": text}] if text.strip() else []


def _rated_answers_error() -> DataUnreadableError:
    return DataUnreadableError(
        Sentence(
            gettext_noop(
                "The data have single answers that are rated good or bad (prompt, completion, label: KTO), and preference "
                "training compares two answers. For each prompt, put a good answer in a column chosen and a bad one in a "
                "column rejected, and leave out prompts that have only one of both. Or remove the bad answers and the "
                "column label, and train with task causal_lm."
            )
        ),
        field="data.dataset_name",
    )
