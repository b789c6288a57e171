"""Choose the columns of conversations (lists of messages, or a prompt and its answer) and of preferences (two answers)."""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl
from django.utils.translation import gettext as _

from datasets_app.reading.column_profiles import YES_NO, profile
from datasets_app.reading.names import LABEL_NAMES
from datasets_app.reading.options import CHAT_KINDS, ColumnOptions
from datasets_app.reading.table import Table, column_error, find_column
from web.errors import InvalidError

_LOOKED_AT = 20  # cells of a column, to see whether they hold messages
_MESSAGE_NAMES = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns")
_SURE_PAIRS = (  # of a prompt and its answer
    *(("instruction", answer) for answer in ("output", "response", "answer", "completion")),
    ("prompt", "completion"),
)
_LIKELY_PAIRS = (  # where the answers are texts
    *(("prompt", answer) for answer in ("response", "answer", "output")),
    *(("question", answer) for answer in ("answer", "response", "output")),
    *(("query", answer) for answer in ("response", "answer")),
    *(("input", "output"), ("input", "response"), ("user", "assistant"), ("human", "assistant")),
    *(("問題", answer) for answer in ("答案", "回答", "答覆", "回覆")),
    *(("问题", answer) for answer in ("答案", "回答", "回复")),
    *(("提問", "回答"), ("提问", "回答"), ("指令", "輸出"), ("指令", "输出"), ("指令", "回應")),
)
_QUESTIONS = ("question", "問題", "问题", "提問", "提问")  # whose answers may also be short: numbers, names
_PREFERENCES = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
_PREFERENCE_PROMPTS = ("prompt", "question", "instruction", "query", "messages")
_FURTHER_PROMPTS = ("input", "context")  # behind an instruction
_SYSTEM_NAMES = ("system", "system_prompt", "system prompt", "系統提示", "系统提示")

Roles = Mapping[str, tuple[str, ...]]  # {one of options.ROLES: columns, in their order}


def choose_roles(table: Table, options: ColumnOptions) -> dict[str, tuple[str, ...]]:
    """Return the roles that the person gave, else those guessed; nothing if the rows have labels instead.

    Raises InvalidError for a column that does not exist, and for conversations without an answer.
    """
    if options.kind == "text" or (table.labels_kind == "text" and not options.kind):
        return {}
    is_asked_for = options.kind in CHAT_KINDS or (not options.kind and bool(options.roles))
    if not is_asked_for and (options.kind or options.text or options.label):
        return {}
    roles: dict[str, tuple[str, ...]] = {}
    for column, role in options.roles.items():
        roles[role] = (*roles.get(role, ()), find_column(table, column, "column_roles"))
    if not roles and is_asked_for and options.text:
        roles = _roles_of_texts(table, options)
    roles = roles or guess_roles(table)
    if not roles and options.kind == "conversations":
        texts = [name for name in table.columns if _is_textual(table, name)]
        roles = {"prompt": (texts[0],), "answer": (texts[1],)} if len(texts) > 1 else {}
    if not roles and is_asked_for:
        _require_answers(table, roles, options)
    if options.kind == "conversations" and "chosen" in roles and not options.roles:
        if "prompt" in roles:  # the chosen answers make conversations
            roles = {
                "answer" if role == "chosen" else role: names for role, names in roles.items() if role != "rejected"
            }
        else:
            roles = {"messages": roles["chosen"]}
    if roles:
        _require_answers(table, roles, options)
    return roles


def _require_answers(table: Table, roles: Roles, options: ColumnOptions) -> None:
    """Raise InvalidError unless the roles make whole conversations, or whole preferences."""
    wants_pairs = options.kind == "preferences" or not {"chosen", "rejected"}.isdisjoint(roles)
    if wants_pairs and not {"chosen", "rejected"} <= roles.keys():
        problem = _("Preferences need a column of the chosen answers and one of the rejected ones.")
        raise column_error(table, "column_roles", problem)
    if not wants_pairs and "messages" not in roles and not {"prompt", "answer"} <= roles.keys():
        problem = _("Conversations need a column of messages, or a prompt and its answer.")
        raise column_error(table, "column_roles", problem)


def _roles_of_texts(table: Table, options: ColumnOptions) -> dict[str, tuple[str, ...]]:
    """Return the roles of columns that a person named as text and label, and now as conversations."""
    texts = tuple(find_column(table, name, "text_column") for name in options.text)
    answers = tuple(find_column(table, name, "label_column") for name in options.label[:1])
    if not answers:
        return {"messages": texts[:1]} if holds_messages(table.frame[texts[0]]) else {}
    return {"prompt": texts, "answer": answers}


def guess_roles(table: Table) -> dict[str, tuple[str, ...]]:
    """Return the roles that the columns have by their content and their names; nothing if they are no conversations.

    Raises InvalidError for ratings of single answers.
    """
    by_name = {name.lower().rpartition(".")[2]: name for name in reversed(table.columns)}
    _refuse_ratings(table, by_name)
    if preferences := _guess_preferences(by_name):
        return preferences
    lists = [name for name in table.columns if holds_messages(table.frame[name])]
    pair = _guess_pair(table, by_name)
    if lists and not {*lists} & {*pair}:
        named = [by_name[name] for name in _MESSAGE_NAMES if by_name.get(name) in lists]
        return {"messages": ((named or lists)[0],)}
    if not pair:
        return {}
    prompts = [pair[0]]
    if pair[0].lower() == "instruction":
        prompts += [by_name[name] for name in _FURTHER_PROMPTS if name in by_name and by_name[name] not in pair]
    system = next((by_name[name] for name in _SYSTEM_NAMES if name in by_name), None)
    return {"prompt": tuple(prompts), "answer": (pair[1],)} | ({"system": (system,)} if system else {})


def _guess_pair(table: Table, by_name: dict[str, str]) -> tuple[str, ...]:
    """Return the columns of a prompt and its answer; nothing if there are none."""
    for prompt, answer in _SURE_PAIRS:
        if prompt in by_name and answer in by_name:
            return by_name[prompt], by_name[answer]
    if any(name in by_name and not _is_textual(table, by_name[name]) for name in LABEL_NAMES):
        return ()
    for prompt, answer in _LIKELY_PAIRS:
        columns = by_name.get(prompt), by_name.get(answer)
        if not columns[0] or not columns[1] or not _is_textual(table, columns[0]):
            continue
        cells = table.frame[columns[1]]
        # Cells of which most differ have too many values to be labels.
        if _is_textual(table, columns[1]) or (prompt in _QUESTIONS and cells.n_unique() > len(cells) / 2):
            return columns[0], columns[1]
    return ()


def _is_textual(table: Table, name: str) -> bool:
    return profile(name, table.frame[name]).is_textual


def holds_messages(cells: pl.Series) -> bool:
    """Return whether most of the first cells are lists of messages as JSON, as OpenAI or ShareGPT have them."""
    first = [cell for cell in cells.head(10 * _LOOKED_AT) if cell.strip()][:_LOOKED_AT]
    return sum(parse_messages(cell) is not None for cell in first) > len(first) / 2


def parse_messages(cell: str) -> list[dict[str, Any]] | None:
    """Return the messages in a cell; None for anything else."""
    if not cell.lstrip().startswith("["):
        return None
    try:
        messages = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    if not messages or not all(isinstance(m, dict) and ("role" in m or "from" in m) for m in messages):
        return None
    return list(messages)


def _guess_preferences(by_name: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the roles of a prompt with a chosen and a rejected answer; nothing if there are none."""
    pair = next((pair for pair in _PREFERENCES if {*pair} <= by_name.keys()), None)
    if pair is None:
        return {}
    roles = {"chosen": (by_name[pair[0]],), "rejected": (by_name[pair[1]],)}
    prompt = next((by_name[name] for name in _PREFERENCE_PROMPTS if name in by_name), None)
    system = next((by_name[name] for name in _SYSTEM_NAMES if name in by_name), None)
    return {**({"prompt": (prompt,)} if prompt else {}), **roles, **({"system": (system,)} if system else {})}


def _refuse_ratings(table: Table, by_name: dict[str, str]) -> None:
    """Raise InvalidError for answers that are only rated good or bad (KTO)."""
    if not {"prompt", "completion", "label"} <= by_name.keys():
        return
    ratings = {*table.frame[by_name["label"]].unique().str.strip_chars().str.to_lowercase()}
    if ratings - YES_NO:
        return
    message = _(
        "This is data of single answers that are rated good or bad (prompt, completion, label). It can be stored as pairs: for "
        "each prompt, put a good answer in a column “chosen” and a bad one in a column “rejected”, and leave out prompts that "
        "have only one of both. Or remove the rows with bad answers and the column “%(label)s” to store conversations. "
        "Nothing was stored."
    )
    raise InvalidError(message % {"label": by_name["label"]}, field="file", columns=table.columns[:30])
