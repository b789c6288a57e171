"""Generate docs/configuration.md from the configuration: python -m engine.config_reference > docs/configuration.md"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from engine.config import RunConfig
from engine.config_sections import Section, section_class
from engine.presets import task_defaults
from engine.task_types import METRICS

HEAD = """# Configuration of a run

The form, the API (`POST /api/train`), the command line and a YAML file all use the same fields, names and checks.
A field that you leave out takes its default; some depend on the task type. An unknown field or an invalid value is an error
that names the field.

A configuration has 64 KiB at most. YAML has 20 levels, 100 aliases and numbers of 100 characters at most; what looks like a date is
text. Whatever is no such YAML is refused with its line.

```yaml
experiment_name: my-first-run
data: {dataset_name: tweets-en@1}
lora: {r: 16, lora_alpha: 32, target_modules: all-linear}
training: {num_train_epochs: 2, learning_rate: 0.001}
```

Presets are in [`config/`](../config), and those of the form in [`engine/presets.py`](../engine/presets.py). This page is generated
from the code by `python -m engine.config_reference`.
"""
LONGEST_LIST = 9  # a longer list of allowed values is not spelled out in the table
TYPE_NAMES = {"str": "text", "int": "whole number", "float": "number", "bool": "`true`, `false`"}


def page() -> str:
    """Return the whole page as Markdown."""
    lines = [HEAD, *section_lines("Top level", RunConfig)]
    for name, field in RunConfig.model_fields.items():
        section = section_class(field.annotation)
        if section is not None:
            lines += section_lines(name, section)
    return "\n".join(lines)


def section_lines(title: str, section: type[Section]) -> Iterator[str]:
    """Yield heading, description and table of a section; fields that are sections themselves are left out."""
    description = (section.__doc__ or "").strip().splitlines()[0]
    yield f"## {title}\n\n{description}\n\n| field | values | default | description |\n|---|---|---|---|"
    for name, field in section.model_fields.items():
        if section_class(field.annotation) is None:
            values = describe_type(field.annotation) + describe_limits(field)
            default = describe_default(field)
            of_tasks = describe_task_defaults(title, name)
            if of_tasks:
                default = (default or "`null`") + of_tasks
            yield f"| `{name}` | {values} | {default} | {field.description} |"
    yield ""


def describe_type(annotation: object) -> str:
    """Return the allowed values of a type, as a reader who does not know Python calls them."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(part) for part in arguments if part is not type(None))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return describe_type(arguments[0])
    if origin in (list, dict):
        parts = ["code" if len(get_args(part)) > LONGEST_LIST else describe_type(part) for part in arguments]
        return f"{origin.__name__} of {' to '.join(parts)}"
    return TYPE_NAMES[getattr(annotation, "__name__", "")]


def describe_limits(field: FieldInfo) -> str:
    """Return the field's limits, such as ", ≥ 1, ≤ 512"."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = []
    for constraint in field.metadata:
        for name, sign in signs.items():
            limit = getattr(constraint, name, None)
            if limit is not None:
                limits.append(f", {sign} {limit:g}")
    return "".join(limits)


def describe_default(field: FieldInfo) -> str:
    """Return the default as it is written in YAML; nothing for an empty one."""
    value = field.get_default(call_default_factory=True)
    if value is None or value == {}:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def describe_task_defaults(section: str, name: str) -> str:
    """Return the defaults of the task types that have their own, such as "; `rmse` for regression"."""
    tasks_of_value: dict[str, list[str]] = {}
    for task in METRICS:
        value = task_defaults(task).get(section, {}).get(name)
        if value is not None and value != getattr(getattr(RunConfig(), section), name):
            tasks_of_value.setdefault(str(value), []).append(task)
    return "".join(f"; `{value}` for {', '.join(tasks)}" for value, tasks in tasks_of_value.items())


if __name__ == "__main__":
    print(page(), end="")
