"""Text formats that are neither CSV nor JSON: fastText, CoNLL, and YAML: a list of objects, or the training data of Rasa."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from django.utils.translation import gettext as _

from datasets_app.reading.archives import head_of
from datasets_app.reading.delimited import LONGEST_LINE, line_too_long
from datasets_app.reading.exports import TAG_FAULTS, spans_of_tags
from datasets_app.reading.json_documents import table_of_items
from datasets_app.reading.table import ReadScope, Table
from web.errors import InvalidError

_FASTTEXT = "__label__"
_MOST_YAML = 8 << 20  # bytes; a document is in memory as a whole
_TAGGED = 0.9  # share of the tokens that have a tag, in CoNLL
_TAG = re.compile(r"O|[BIESLUM]-\S+")


def line_format(text: Path) -> str:
    """Return fasttext, conll or yaml by the first lines of a file; an empty string for others."""
    lines = head_of(text).decode("utf-8", "replace").lstrip("\ufeff").splitlines()[:-1] or [""]
    filled = [line for line in lines if line.strip()][:200]
    if not filled:
        return ""
    if sum(_FASTTEXT in line for line in filled) > len(filled) * 0.9:
        return "fasttext"
    if re.match(r"version:|nlu:|---\s*$", filled[0]) and any(line.startswith(("nlu:", "- intent:")) for line in filled):
        return "yaml"
    if re.match(r"- \w+: ", filled[0]) and len(filled) > 1 and re.match(r"  \w+: ", filled[1]):
        return "yaml"
    words = [line.split() for line in filled if not line.startswith(("#", "-DOCSTART-"))]
    tags = [parts[-1] for parts in words if len(parts) > 1]
    is_conll = all(map(_TAG.fullmatch, tags)) and len(tags) >= len(words) * _TAGGED
    return "conll" if is_conll and any(len(tag) > 1 for tag in tags) else ""


def read_line_format(text: Path, kind: str, scope: ReadScope, limit: int) -> Table:
    """Read a file of one of these formats."""
    if kind == "yaml":
        items, is_rasa = _yaml_items(text)
        table = table_of_items(items, kind, scope, limit, flat=is_rasa)
        if not is_rasa:
            return table
        table.label = "intent"
    elif kind == "fasttext":
        table = table_of_items(_fasttext_items(_lines_of(text)), kind, scope, limit, flat=True)
        table.label = "label"
    else:
        table = table_of_items(_conll_items(_lines_of(text)), kind, scope, limit, flat=True)
        table.label = "label"
        table.labels_kind = "spans"
    table.text = "text"
    table.header = False
    return table


def _lines_of(text: Path) -> Iterator[str]:
    with open(text, encoding="utf-8-sig", errors="replace", newline="\n") as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise line_too_long()
            yield line.rstrip("\r\n")


def _fasttext_items(lines: Iterator[str]) -> Iterator[Any]:
    """Yield the records of `__label__bad __label__late Cold fish`; a line without a label has none."""
    for line in lines:
        if line.strip():
            words = line.split(" ")
            labels = [word.removeprefix(_FASTTEXT) for word in words if word.startswith(_FASTTEXT)]
            text = " ".join(word for word in words if not word.startswith(_FASTTEXT))
            yield {"text": text.strip(), "label": labels}


def _conll_items(lines: Iterator[str]) -> Iterator[Any]:
    """Yield the sentences, one token with its tag on a line, blank lines between them."""
    words: list[str] = []
    tags: list[str] = []
    for line in [*lines, ""]:
        parts = line.split()
        if not parts or parts[0] == "-DOCSTART-":
            if words:
                item = spans_of_tags(words, [tag or "O" for tag in tags])
                item[TAG_FAULTS]["missing"] = not all(tags)
                yield item
            words = []
            tags = []
        elif not line.startswith("# "):
            words.append(parts[0])
            tags.append(parts[-1] if len(parts) > 1 else "")


def _yaml_items(text: Path) -> tuple[Sequence[Any], bool]:
    """Return the objects of a list, or the examples of Rasa's training data, and whether they are the latter."""
    if text.stat().st_size > _MOST_YAML:
        message = _("YAML files of more than %(limit)s MiB are not read. Nothing was stored; save the rows as JSON.")
        raise InvalidError(message % {"limit": _MOST_YAML >> 20}, field="file")
    try:
        document = yaml.safe_load(text.read_text(encoding="utf-8-sig", errors="replace"))
    except yaml.YAMLError as error:
        message = _("This is not valid YAML: %(why)s. Nothing was stored.")
        raise InvalidError(message % {"why": str(error).splitlines()[0][:120]}, field="file") from None
    if isinstance(document, list):
        return document, False
    nlu = document.get("nlu") if isinstance(document, dict) else None
    if not isinstance(nlu, list):
        message = _("Of YAML files, only lists of objects and the training data of Rasa are read. Nothing was stored.")
        raise InvalidError(message, field="file")
    return _rasa_items(nlu), True


def _rasa_items(nlu: list[Any]) -> list[Any]:
    """Return the examples of [{intent, examples: "- a\n- b"}]; marks of entities in them are taken out."""
    items = []
    for block in nlu:
        if not isinstance(block, dict) or "intent" not in block:
            continue  # lookup tables, synonyms and regular expressions
        examples = block.get("examples") or ""
        lines = examples.splitlines() if isinstance(examples, str) else [e.get("text", "") for e in examples]
        for line in lines:
            text_of_line = re.sub(r"\[([^\]]+)\](?:\([^)]*\)|\{[^}]*\})", r"\1", line.strip().removeprefix("- "))
            items.append({"text": text_of_line.strip(), "intent": str(block["intent"])})
    return items
