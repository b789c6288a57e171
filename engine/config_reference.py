"""docs/configuration.md, made from the configuration itself: python -m engine.config_reference > docs/configuration.md"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from engine.config import RunConfig, Section

HEAD = """# Configuration of a run

The same fields, names and checks hold for the form, the API (`POST /api/train`), the command line and a YAML file.
What is left out takes its default; an unknown field or a bad value is an error that names the field.

A configuration has 64 KiB at most. YAML has 20 levels, 100 aliases and numbers of 100 characters at most; what looks like a date is
text. Whatever is no such YAML is refused with its line.

```yaml
experiment_name: my-first-run
data: {dataset_name: tweets-en@1}
lora: {r: 16, lora_alpha: 32, target_modules: all-linear}
training: {num_train_epochs: 2, learning_rate: 0.001}
```

Presets lie in [`config/`](../config). This page is made from the code: `python -m engine.config_reference`.
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([HEAD, *_section("Top level", RunConfig), *_sections()])


def _sections() -> Iterator[str]:
    for name, info in RunConfig.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from _section(name, info.annotation)


def _section(title: str, model: type[Section]) -> Iterator[str]:
    yield f"## {title}\n\n{(model.__doc__ or '').strip().splitlines()[0]}\n\n| field | values | default | |\n|---|---|---|---|"
    for name, info in model.model_fields.items():
        if not (isinstance(info.annotation, type) and issubclass(info.annotation, Section)):
            yield f"| `{name}` | {_values(info.annotation)}{_limits(info.metadata)} | {_default(info)} | {info.description} |"
    yield ""


def _values(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_values(part) for part in inner if part is not type(None))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is Annotated:
        return _values(inner[0])
    if origin in (list, dict):
        return f"{origin.__name__} of {' to '.join('code' if len(get_args(i)) > 9 else _values(i) for i in inner)}"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "`true`, `false`"}[annotation.__name__]


def _limits(metadata: list[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [f"{signs[k]} {getattr(m, k):g}" for m in metadata for k in signs if getattr(m, k, None) is not None]
    return f", {', '.join(found)}" if found else ""


def _default(info: Any) -> str:
    value = info.get_default(call_default_factory=True)
    return "" if value in (None, {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    print(page(), end="")
