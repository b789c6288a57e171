"""Recognise the exports of annotation tools among JSON records, and turn each record into a flat one.

The shapes are those that the tools document: Label Studio (JSON and JSON-MIN), doccano, Argilla (2, 1 and flattened), Prodigy,
spaCy, Rasa, and lists of tokens with tags. A label is a string, a list of strings, or a list of spans {start, end, label} with
offsets in characters.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

Item = dict[str, Any]
# The key under which a record of tags tells whether a tag continues no span, and whether a span begins with its own tag.
TAG_FAULTS = "\x00tag faults"


@dataclass(frozen=True)
class LeftOut:
    """In place of a record that is left out."""

    reason: str
    text: str = ""  # to name it in a finding


@dataclass(frozen=True)
class Export:
    """What a file was exported from, and how its records are turned into flat ones."""

    tool: str
    convert: Callable[[Item], Item | LeftOut]
    label: str = ""  # the key of the flat record that holds the label, where it is certain
    kind: str = ""  # of the dataset, where it is certain


def recognise(items: Sequence[Any]) -> Export | None:
    """Return the export that these first records come from; None for records of no known tool."""
    records = [item for item in items if isinstance(item, dict)]
    if not records:
        return None
    for find in (find_label_studio, find_label_studio_min, find_argilla, find_prodigy, find_tagged_tokens, find_spans):
        if export := find(records):
            return export
    return None


def _have(records: Iterable[Item], *keys: str) -> bool:
    """Return whether most records have all these keys."""
    flags = [all(key in record for key in keys) for record in records]
    return sum(flags) > len(flags) / 2


# --- Label Studio ----------------------------------------------------------------------------------------------------


def find_label_studio(records: Sequence[Item]) -> Export | None:
    if not (_have(records, "data", "annotations") or _have(records, "data", "completions")):
        return None
    names: Counter[str] = Counter()
    is_spans = False
    for record in records:
        for annotation in _annotations_of(record):
            for result in annotation.get("result") or []:
                names[str(result.get("from_name") or "label")] += 1
                is_spans = is_spans or "start" in (result.get("value") or {})
    label = names.most_common(1)[0][0] if names else "label"
    return Export("Label Studio", flatten_label_studio, label, "spans" if is_spans else "")


def _annotations_of(record: Item) -> list[Item]:
    listed = record.get("annotations") or record.get("completions") or []
    return [annotation for annotation in listed if isinstance(annotation, dict)]


def flatten_label_studio(record: Item) -> Item | LeftOut:
    annotations = _annotations_of(record)
    given = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    if annotations and not given:
        return LeftOut("cancelled")
    answers = [answer_of_label_studio(annotation) for annotation in given]
    answer = most_agreed(answers) if answers else {}
    if answer is None:
        return LeftOut("annotators_disagree")
    data = record.get("data")
    return {**(data if isinstance(data, dict) else {"data": data}), **answer}


def answer_of_label_studio(annotation: Item) -> Item:
    """Return {name of the question: labels or spans} of one annotator."""
    answer: dict[str, list[Any]] = {}
    for result in annotation.get("result") or []:
        value = result.get("value") or {}
        labels = next((value[key] for key in ("choices", "labels", "hypertextlabels") if key in value), None)
        if labels is None:
            labels = [value[key] for key in ("rating", "number", "text") if key in value]
        chosen = answer.setdefault(str(result.get("from_name") or "label"), [])
        if "start" in value and "end" in value:
            chosen += [{"start": value["start"], "end": value["end"], "label": label} for label in labels]
        else:
            chosen += labels if isinstance(labels, list) else [labels]
    return dict(answer)


def most_agreed(answers: Sequence[Item]) -> Item | None:
    """Return the answer that most annotators gave; None if two are given equally often."""
    counts = Counter(repr(answer) for answer in answers)
    ranked = counts.most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return None
    return next(answer for answer in answers if repr(answer) == ranked[0][0])


def find_label_studio_min(records: Sequence[Item]) -> Export | None:
    if not (_have(records, "annotation_id", "annotator") or _have(records, "annotation_id", "lead_time")):
        return None
    spans = [key for record in records for key, value in record.items() if _as_spans(value)]
    label = Counter(spans).most_common(1)[0][0] if spans else ""
    return Export("Label Studio (JSON-MIN)", flatten_label_studio_min, label, "spans" if spans else "")


_BOOKKEEPING = {"annotation_id", "annotator", "annotators", "lead_time", "created_at", "updated_at", "id"}


def flatten_label_studio_min(record: Item) -> Item | LeftOut:
    flat: Item = {}
    for key, value in record.items():
        if key not in _BOOKKEEPING:
            choices = value.get("choices") if isinstance(value, dict) else None
            flat[key] = choices or _as_spans(value) or value
    return flat


# --- Argilla ---------------------------------------------------------------------------------------------------------


def find_argilla(records: Sequence[Item]) -> Export | None:
    if _have(records, "fields") and (_have(records, "responses") or _have(records, "suggestions")):
        questions = Counter(name for record in records for name in _argilla_answers(record))
        return Export("Argilla", flatten_argilla, questions.most_common(1)[0][0] if questions else "label")
    if _have(records, "annotation", "status") and (_have(records, "inputs") or _have(records, "text")):
        return Export("Argilla", flatten_argilla_1, "label")
    questions = Counter(
        key.removesuffix(".responses") for record in records for key in record if key.endswith(".responses")
    )
    if questions and _have(records, f"{questions.most_common(1)[0][0]}.responses"):
        return Export("Argilla", flatten_argilla_columns, questions.most_common(1)[0][0])
    return None


def flatten_argilla(record: Item) -> Item | LeftOut:
    fields = record.get("fields")
    if record.get("status") == "discarded":
        return LeftOut("cancelled")
    return {**(fields if isinstance(fields, dict) else {"text": fields}), **_argilla_answers(record)}


def _argilla_answers(record: Item) -> Item:
    """Return {question: answer} of what people submitted, else what was suggested."""
    submitted: dict[str, list[Any]] = {}
    responses = record.get("responses") or {}
    if isinstance(responses, dict):  # version 2: {question: [{value, status}]}
        for question, given in responses.items():
            for response in given if isinstance(given, list) else [given]:
                _add_response(submitted, question, response)
    else:  # version 1: [{values: {question: {value}}, status}]
        for response in responses:
            for question, value in (response.get("values") or {}).items():
                _add_response(submitted, question, {**value, "status": response.get("status")})
    answers = {question: most_frequent(values) for question, values in submitted.items()}
    suggestions = record.get("suggestions") or {}
    if isinstance(suggestions, list):
        suggestions = {s.get("question_name") or s.get("question"): s for s in suggestions if isinstance(s, dict)}
    for question, suggestion in suggestions.items():
        value = suggestion.get("value") if isinstance(suggestion, dict) else suggestion
        answers.setdefault(str(question), value)
    return answers


def _add_response(submitted: dict[str, list[Any]], question: str, response: Any) -> None:
    if not isinstance(response, dict):
        submitted.setdefault(question, []).append(response)
    elif response.get("status", "submitted") == "submitted":
        submitted.setdefault(question, []).append(response.get("value"))


def flatten_argilla_1(record: Item) -> Item | LeftOut:
    if record.get("status") in ("Discarded", "discarded"):
        return LeftOut("cancelled")
    inputs = record.get("inputs")
    texts = inputs if isinstance(inputs, dict) and inputs else {"text": record.get("text") or inputs}
    return {**texts, "label": record.get("annotation")}


def flatten_argilla_columns(record: Item) -> Item | LeftOut:
    flat: Item = {}
    for key, value in record.items():
        question, _, part = key.rpartition(".")
        if part == "responses" and value:
            flat[question] = most_frequent(value) if isinstance(value, list) else value
        elif part == "suggestion":
            flat.setdefault(question, value)
        elif not question:
            flat[key] = value
    return flat


def most_frequent(values: Sequence[Any]) -> Any:
    """Return the value that stands most often in a list; of equally frequent ones the first."""
    counts = Counter(repr(value) for value in values)
    return next((value for value in values if repr(value) == counts.most_common(1)[0][0]), None)


# --- Prodigy ---------------------------------------------------------------------------------------------------------


def find_prodigy(records: Sequence[Item]) -> Export | None:
    is_prodigy = _have(records, "_input_hash") or _have(records, "_task_hash")
    answered = sum(record.get("answer") in ("accept", "reject", "ignore") for record in records)
    if not is_prodigy and answered < len(records):
        return None
    if _have(records, "accept") or _have(records, "label"):
        return Export("Prodigy", flatten_prodigy, "label")
    if _have(records, "spans"):
        return Export("Prodigy", flatten_prodigy, "label", "spans")
    return None


def flatten_prodigy(record: Item) -> Item | LeftOut:
    answer = record.get("answer", "accept")
    if answer != "accept":
        return LeftOut("rejected" if answer == "reject" else "cancelled")
    label = record.get("accept", record.get("label"))
    if label is None:
        label = _as_spans(record.get("spans")) or []
    return {"text": record.get("text"), "label": label}


# --- spans and tokens ------------------------------------------------------------------------------------------------


def find_spans(records: Sequence[Item]) -> Export | None:
    """Recognise texts with spans, as doccano, spaCy and Rasa write them: under `entities`, `spans`, `label` or `labels`."""
    if not _have(records, "text"):
        return None
    for key in ("entities", "spans", "label", "labels", "ner"):
        values = [record[key] for record in records if record.get(key)]
        has_class = key in ("entities", "spans") and (_have(records, "intent") or _have(records, "label"))
        if values and not has_class and all(_as_spans(value) for value in values):
            tool = "spaCy" if key in ("entities", "spans", "ner") else "doccano"
            return Export(tool, partial(flatten_spans, key), "label", "spans")
    return None


def flatten_spans(key: str, record: Item) -> Item | LeftOut:
    return {"text": record.get("text"), "label": _as_spans(record.get(key)) or []}


def _as_spans(value: Any) -> list[Item] | None:
    """Return a list of spans in one shape; None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    spans = []
    for span in value:
        if isinstance(span, list) and len(span) == 3 and isinstance(span[0], int) and isinstance(span[1], int):
            spans.append({"start": span[0], "end": span[1], "label": str(span[2])})
        elif isinstance(span, dict):
            start = span.get("start", span.get("start_offset"))
            end = span.get("end", span.get("end_offset"))
            labels = span.get("labels") or [span.get("label") or span.get("entity") or span.get("type")]
            if not isinstance(start, int) or not isinstance(end, int) or labels[0] is None:
                return None
            spans += [{"start": start, "end": end, "label": str(label)} for label in labels]
        else:
            return None
    return spans


def find_tagged_tokens(records: Sequence[Item]) -> Export | None:
    """Recognise lists of tokens with a tag each."""
    tokens = next((key for key in ("tokens", "words") if _have(records, key)), None)
    tags = next((key for key in ("ner_tags", "tags", "labels", "ner") if _have(records, key)), None)
    first = records[0]
    if not tokens or not tags or not isinstance(first.get(tokens), list) or not isinstance(first.get(tags), list):
        return None
    if not all(isinstance(tag, str) for tag in first[tags]):
        return None

    def convert(record: Item) -> Item | LeftOut:
        words = [str(word) for word in record.get(tokens) or []]
        given = [str(tag) for tag in record.get(tags) or []]
        if len(words) != len(given):
            return LeftOut("tags_do_not_fit", " ".join(words))
        return spans_of_tags(words, given)

    return Export("CoNLL", convert, "label", "spans")


def spans_of_tags(words: Sequence[str], tags: Sequence[str]) -> Item:
    """Return the text of the words, joined by spaces, with the spans that tags in IOB, IOB2 or BIOES mark."""
    text = ""
    spans: list[Item] = []
    previous = "O"
    is_broken = False
    has_beginning = False
    for word, tag in zip(words, tags, strict=True):
        start = len(text) + bool(text)
        text = f"{text} {word}" if text else word
        prefix, _, name = tag.partition("-") if tag[1:2] == "-" else ("I", "", tag)
        if tag in ("O", ""):
            previous = "O"
            continue
        continues = prefix in "IELM" and previous == name and spans
        has_beginning = has_beginning or (prefix in "BSU" and previous != name)
        is_broken = is_broken or (tag[1:2] == "-" and prefix in "IELM" and not continues)
        if continues:
            spans[-1]["end"] = len(text)
        else:
            spans.append({"start": start, "end": len(text), "label": name})
        previous = "O" if prefix in "ELSU" else name
    return {"text": text, "label": spans, TAG_FAULTS: {"broken": is_broken, "beginning": has_beginning}}
