"""Check the module names and layer numbers of a LoRA configuration against the model. PEFT ignores what it cannot find."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from torch import nn

from engine.config_sections import LoraSection
from engine.errors import ConfigError, Problem
from engine.sentences import Sentence, gettext_noop, join_sentences

MOST_NAMES = 12  # of known modules in an error


def check_module_names(model: nn.Module, config: LoraSection) -> None:
    """Raise ConfigError for each name and each layer of lora.* that the model does not have."""
    paths = [path for path, module in model.named_modules() if path and any(True for _ in module.parameters())]
    problems = _unknown_names("lora.modules_to_save", config.modules_to_save or [], paths)
    if isinstance(config.target_modules, list):
        problems += _unknown_names("lora.target_modules", config.target_modules, paths)
    layers = {int(part) for path in paths for part in path.split(".") if part.isdigit()}
    unknown = sorted(set(config.layers_to_transform or []) - layers)
    if unknown:
        field = "lora.layers_to_transform"
        sentences = [
            Sentence(gettext_noop("{field}: the base model has no layer {layer}."), field=field, layer=unknown[0])
        ]
        if layers:
            span = {"first": min(layers), "last": max(layers)}
            sentences.append(Sentence(gettext_noop("Its layers are {first} to {last}."), **span))
        problems.append(Problem(field, join_sentences(sentences), "unknown_layer"))
    if problems:
        raise ConfigError(problems)


def outermost_names(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return `names` for PEFT's modules_to_save so that it finds just the modules that are called so, none inside another.

    To PEFT, "embeddings" is the end of "word_embeddings" too; where that makes a difference, these are whole paths.
    """
    names = sorted(set(names))
    paths = [path for path, _module in model.named_modules() if path]
    meant = {path for path in paths if any(f".{path}".endswith(f".{name}") for name in names)}
    outermost = {path for path in meant if not any(path.startswith(f"{other}.") for other in meant)}
    found_by_peft = {path for path in paths if path.endswith(tuple(names))}
    return names if found_by_peft == outermost else sorted(outermost)


def present_names(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return the names that PEFT finds in a model, each once. It compares the ends of paths."""
    paths = [path for path, _module in model.named_modules()]
    return sorted(name for name in set(names) if any(path.endswith(name) for path in paths))


def _unknown_names(field: str, names: list[str], paths: list[str]) -> list[Problem]:
    """Return a problem for each name that is neither a module's path nor the end of one."""
    known = sorted({path.rpartition(".")[2] for path in paths} - {str(number) for number in range(1000)})
    problems = []
    for name in names:
        if any(f".{path}".endswith(f".{name}") for path in paths):
            continue
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        shown = ", ".join(known[:MOST_NAMES]) + (", …" if len(known) > MOST_NAMES else "")
        message = Sentence(gettext_noop("{field}: the base model has no module {name}."), field=field, name=name)
        hint = Sentence(gettext_noop("Its modules with weights are {names}."), names=shown)
        if similar:
            hint = Sentence(gettext_noop("Did you mean {name}?"), name=similar[0])
        problems.append(Problem(field, join_sentences([message, hint]), "unknown_module"))
    return problems
