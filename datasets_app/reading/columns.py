"""Choose the columns that hold text, label and split: those that a person names, else those guessed."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from datasets_app.reading import chat_columns
from datasets_app.reading.column_profiles import YES, YES_NO, Profile, profile
from datasets_app.reading.names import LABEL_NAMES, PAIR_NAMES, SPLIT_COLUMN_NAMES, TEXT_NAMES
from datasets_app.reading.options import ColumnOptions
from datasets_app.reading.table import HEAD_ROWS, Table, column_error, find_column
from engine.data.labelled_rows import SPLIT_NAMES
from web.errors import InvalidError

MOST_LABELS = 200
_FEW_CLASSES = 30  # a column with so few values is a better guess for the label than two columns of yes and no
_COUNTING = re.compile(r"(?i)([_ -](id|no|nr|num|number|size|count|index|idx|confidence|score)|^(id|index|no))$")
_LONG_TEXT = 200  # characters on average, from which texts without a label are taken for documents
_SHORT_TEXT_NAMES = ("title", "headline")
_NAMING = re.compile(r"(?i)[_ -](name|text|str|string)$")


@dataclass(frozen=True)
class ColumnChoice:
    """Names of a table's columns."""

    texts: tuple[str, ...] = ()  # joined in this order
    labels: tuple[str, ...] = ()  # several: one column of yes and no for each label
    pair: str | None = None  # a second text of each row
    split: str | None = None
    split_values: dict[str, str] = field(default_factory=dict)  # {value in lower case: train, eval or test}
    kind: str = ""  # as the person wants it
    merge_labels: bool = False  # those that look alike
    roles: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # of a conversation's columns: see chat_columns.ROLES

    @property
    def text(self) -> str | None:
        return self.texts[0] if self.texts else None

    @property
    def label(self) -> str | None:
        return self.labels[0] if self.labels else None

    @property
    def columns(self) -> list[str]:
        """All columns that are needed."""
        of_roles = [name for names in self.roles.values() for name in names]
        return [*dict.fromkeys(name for name in (*self.texts, self.pair, *self.labels, *of_roles, self.split) if name)]


# --- the guess -------------------------------------------------------------------------------------------------------


def guess(table: Table) -> ColumnChoice:
    """Guess by names and by content together: the text has long cells that differ, the label few values that repeat."""
    split = table.split or guess_split(table)
    never = {*table.nested} - {table.label, table.text}
    profiles = [profile(name, table.frame[name]) for name in table.columns if name != split and name not in never]
    pair = None
    if not table.text:  # two columns of texts that belong together by their names
        by_name = {p.name.lower(): p.name for p in reversed(profiles)}
        pair = next(((by_name[a], by_name[b]) for a, b in PAIR_NAMES if a in by_name and b in by_name), None)
    lists = {*table.lists}
    texts: tuple[str, ...]
    if pair:
        texts = (pair[0],)
    elif table.text:
        texts = (table.text,)
    else:
        sure_label = table.label or _exactly_named(profiles, LABEL_NAMES)
        texts = _best(profiles, _text_score, without={*lists, sure_label})
    used = {*texts, pair[1] if pair else None}
    if table.label:
        labels: tuple[str, ...] = (table.label,)
    else:
        others = [p for p in profiles if p.name not in used]
        labels = guess_labels(others, lists)
        label = next((p for p in others if (p.name,) == labels), None)
        if label is not None and label.numbers >= 1 and not label.decimals:
            # Perhaps a column has a name for each number, as `label_text` beside `label`.
            names = [p.name for p in others if p.numbers == 0 and p.words < 4 and _are_one_to_one(table, label, p)]
            labels = tuple(names[:1]) or labels
    return ColumnChoice(texts, labels, pair[1] if pair else None, split)


def _are_one_to_one(table: Table, one: Profile, other: Profile) -> bool:
    """Return whether each of a few values of a column stands beside a value of its own in another column, and this often."""
    if one.different != other.different or not 2 <= one.different <= min(MOST_LABELS, one.filled // 4):
        return False
    return table.frame.head(HEAD_ROWS).select(one.name, other.name).n_unique() == one.different


def _best(profiles: Iterable[Profile], score: Any, without: Iterable[str | None] = ()) -> tuple[str, ...]:
    """Return the name of the column with the highest score above 0; nothing if there is none."""
    scores = {p.name: score(p) for p in profiles if p.name not in without}
    best = max(scores, key=lambda name: scores[name], default=None)
    return (best,) if best is not None and scores[best] > 0 else ()


def _exactly_named(profiles: Iterable[Profile], names: Sequence[str]) -> str | None:
    by_name = {p.name.lower(): p.name for p in reversed([*profiles])}
    return next((by_name[name] for name in names if name in by_name), None)


def _name_score(name: str, names: Sequence[str]) -> float:
    """Return 1 for the first of the names, a little less for later ones, a third where the column's name contains one."""
    lowered = name.lower()
    if lowered in names:
        return 1 - names.index(lowered) / 100
    parts = re.split(r"[^a-z0-9\u0080-\uffff]+", lowered)
    is_part = any(part in names for part in parts)
    is_inside = any((len(n) > 3 or not n.isascii()) and n in lowered for n in names)
    return 0.4 if is_part else 0.3 if is_inside else 0.0


def _text_score(p: Profile) -> float:
    by_name = _name_score(p.name, TEXT_NAMES)
    if p.name.lower() in _SHORT_TEXT_NAMES:  # of a longer text, where there is one
        by_name = min(by_name, 0.4)
    if p.numbers > 0.9 or p.dates_or_links:
        return by_name if by_name > 0.5 else -1
    score = 3 * by_name + math.log2(1 + p.mean_length) / 2
    if p.words < 1.5 and p.mean_length < 40:  # a name, a code
        score -= 1.5
    return score if p.filled else by_name - 0.5


def _label_score(p: Profile) -> float:
    by_name = _name_score(p.name, LABEL_NAMES)
    repeats = 2 <= p.different <= min(MOST_LABELS, max(2, p.filled // 2))
    score = 4 * by_name + (1.5 - 0.3 * math.log10(p.different) if repeats else -2)
    if by_name < 0.5:
        score -= 1.2 * bool(_COUNTING.search(p.name)) - 0.3 * bool(_NAMING.search(p.name))
        score -= 2 * (p.mean_length > 60) + 0.5 * (p.decimals > 0)
    return score


def guess_labels(profiles: list[Profile], lists: set[str]) -> tuple[str, ...]:
    """Return the column of the label, or several columns of yes and no."""
    named = _exactly_named(profiles, LABEL_NAMES)
    if named:
        return (named,)
    flags = tuple(p.name for p in profiles if p.yes_no and p.different <= 2 and not _COUNTING.search(p.name))
    others = [p for p in profiles if p.name not in flags and p.name not in lists]
    best = _best(others, _label_score)
    is_class = any(p.name in best and p.different <= _FEW_CLASSES and p.numbers < 0.5 for p in others)
    if len(flags) > 1 and not (is_class and len(flags) < 3):
        return flags
    if not best and lists:
        best = _best([p for p in profiles if p.name in lists], lambda p: 1 + _name_score(p.name, LABEL_NAMES))
    scores = tuple(p.name for p in profiles if p.numbers > 0.95 and p.decimals > 0.3)
    return best or _best(profiles, _label_score) or (scores if len(scores) == 1 else ())


def guess_split(table: Table) -> str | None:
    for name in table.columns:
        if name.lower() in SPLIT_COLUMN_NAMES:
            values = set(table.frame[name].unique().str.strip_chars().str.to_lowercase())
            if values <= {*meanings_of_splits(name)}:
                return name
    return None


def meanings_of_splits(column: str) -> dict[str, str]:
    """Return {value in lower case: split} of a column that holds splits."""
    lowered = column.lower()
    if "valid" in lowered or lowered in ("is_val", "is_eval", "is_dev"):
        return {**dict.fromkeys(YES - {""}, "eval"), **dict.fromkeys(YES_NO - YES - {""}, "train")}
    if lowered == "is_test":
        return {**dict.fromkeys(YES, "test"), **dict.fromkeys(YES_NO - YES - {""}, "train")}
    if lowered == "is_train":
        return {**dict.fromkeys(YES, "train"), **dict.fromkeys(YES_NO - YES - {""}, "eval")}
    return SPLIT_NAMES


# --- the choice ------------------------------------------------------------------------------------------------------


def choose_columns(table: Table, options: ColumnOptions | None = None) -> ColumnChoice:
    """Return the columns that the person named, else those guessed; raise InvalidError with the names that exist."""
    options = options or ColumnOptions()
    if roles := chat_columns.choose_roles(table, options):
        return _choose_chat(table, roles, options)
    if options.kind == "text" or (table.labels_kind == "text" and not options.kind):
        return _choose_plain_texts(table, options)
    texts = tuple(find_column(table, name, "text_column") for name in options.text)
    labels = tuple(find_column(table, name, "label_column") for name in options.label)
    pair = find_column(table, options.text_pair, "text_pair_column") if options.text_pair else None
    split = find_column(table, options.split, "split_column") if options.split else None
    guessed = guess(table)
    if not texts:
        texts = tuple(name for name in guessed.texts if name not in labels and name != pair)
        texts = texts or _best_texts(table, {*labels, pair, split})
        pair = pair or (guessed.pair if guessed.pair not in labels else None)
    labels = labels or tuple(name for name in guessed.labels if name not in texts and name != pair)
    split = split or (guessed.split if guessed.split not in (*texts, *labels) else None)
    if not texts:
        raise column_error(table, "text_column", _("No column looks like the text."))
    is_plain = not labels and not options.kind and not pair
    if is_plain and any(profile(name, table.frame[name]).mean_length >= _LONG_TEXT for name in texts):
        return _choose_plain_texts(table, options)
    if not labels:
        raise column_error(table, "label_column", _("No column looks like the label."))
    if {*texts, pair} & {*labels}:
        raise InvalidError(_("Text and label are the same column. Choose two."), field="label_column")
    for name in (*texts, *labels):
        if name in table.nested and name not in (table.text, table.label):
            field_name = "text_column" if name in texts else "label_column"
            message = _("The column “%(column)s” holds objects or lists of them, and no texts or labels.")
            raise column_error(table, field_name, message % {"column": name[:80]})
    values = _split_values(table, split, options) if split else {}
    return ColumnChoice(texts, labels, pair, split, values, options.kind, options.merge_labels)


def _best_texts(table: Table, without: set[str | None]) -> tuple[str, ...]:
    """Return the column that looks most like texts; nothing if none does."""
    names = [name for name in table.columns if name not in {*table.nested, *table.lists}]
    return _best([profile(name, table.frame[name]) for name in names], _text_score, without=without)


def _choose_plain_texts(table: Table, options: ColumnOptions) -> ColumnChoice:
    """Return the columns of texts that a language model learns as a whole."""
    split = find_column(table, options.split, "split_column") if options.split else table.split or guess_split(table)
    texts = tuple(find_column(table, name, "text_column") for name in options.text)
    texts = texts or guess(table).texts or _best_texts(table, {split})
    if not texts:
        raise column_error(table, "text_column", _("No column looks like the text."))
    values = _split_values(table, split, options) if split else {}
    return ColumnChoice(texts, split=split, split_values=values, kind="text")


def _choose_chat(table: Table, roles: chat_columns.Roles, options: ColumnOptions) -> ColumnChoice:
    split = find_column(table, options.split, "split_column") if options.split else table.split or guess_split(table)
    values = _split_values(table, split, options) if split else {}
    return ColumnChoice(
        split=split, split_values=values, kind="preferences" if "chosen" in roles else "conversations", roles=roles
    )


def _split_values(table: Table, split: str, options: ColumnOptions) -> dict[str, str]:
    """Return what the values of the split column mean; raise InvalidError for values that nobody explained."""
    meanings = meanings_of_splits(split) | {value.strip().lower(): to for value, to in options.split_values.items()}
    values = table.frame[split].str.strip_chars().str.to_lowercase().unique().sort().to_list()
    unknown = [value for value in values if value not in meanings]
    if unknown and (options.split or options.split_values):
        message = _(
            "The column “%(column)s” has values that are no split: %(values)s. Say which of them mean train, eval and test; "
            "nothing was stored."
        )
        facts = {"column": split[:80], "values": ", ".join(f"“{value[:40]}”" for value in unknown[:8])}
        raise InvalidError(message % facts, field="split_column")
    return {value: meanings[value] for value in values if meanings.get(value)}


def notes_on_choice(table: Table, choice: ColumnChoice) -> Iterator[dict[str, Any]]:
    """Yield what was left unused and looks as if it mattered: other texts, a split, numbers that the labels stand for."""
    label = profile(choice.label, table.frame[choice.label]) if len(choice.labels) == 1 and choice.label else None
    for name in table.columns:
        if name in choice.columns or name in table.nested or name in table.lists:
            continue
        unused = profile(name, table.frame[name])
        if unused.is_textual:
            yield {"code": "unused_text", "column": name}
        elif label and unused.numbers == 1 and not label.numbers and _are_one_to_one(table, unused, label):
            yield {"code": "label_names", "column": name, "names": label.name}
        elif name.lower() in SPLIT_COLUMN_NAMES:
            yield {"code": "unused_split", "column": name}
