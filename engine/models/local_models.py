"""List the base models that are on this machine: the sample, the folders of BASE_MODELS_DIR, and the hub's cache.

Reads config.json and the headers of weights. Imports neither torch nor transformers, so that pages can list models at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from engine import safe_yaml
from engine.config_sections import SAMPLE_MODEL, ModelSection
from engine.errors import EngineError
from engine.models.base_models import find_cached, is_incomplete
from engine.models.recommended import find_recommended
from engine.models.text_encoding import longest_text
from engine.models.weight_files import count_parameters, read_config
from samples import SAMPLE_LANGUAGE_MODEL
from samples.language_model import converted_path

Place = Literal["sample", "folder", "hub_cache"]
CACHE_PREFIX = "models--"  # of the cache's folders: models--owner--name


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A base model on this machine. `folder` is None for samples, whose facts are in the table of recommended models."""

    name: str
    place: Place
    folder: Path | None = None

    def read_facts(self) -> LocalFacts:
        """Return what its files say. What can't be read is None: a damaged model is refused when a run asks for it."""
        assert self.folder is not None
        config: dict[str, Any] = {}
        parameters = None
        with suppress(EngineError):
            config = read_config(self.folder, self.name)
        if not isinstance(config.get("model_type"), str):
            config = {}
        with suppress(EngineError, OSError, ValueError, KeyError, TypeError):
            parameters = count_parameters(self.folder, self.name)
        return LocalFacts(config, parameters, read_card(self.folder))


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """config: the content of config.json; empty if it can't be read, names no type, or asks for code of the model's own.

    card: the metadata of README.md, as model hubs read them; empty without any.
    """

    config: dict[str, Any]
    parameters: int | None
    card: dict[str, Any]

    @property
    def longest_text(self) -> int | None:
        """Return the tokens of the longest text; None if any length is possible, or config.json leaves it open."""
        content = {key: value for key, value in self.config.items() if key != "get_text_config"}
        try:
            return longest_text(PlainConfig(**content))  # type: ignore[arg-type]  # it only reads attributes
        except TypeError:  # a value of another type, which transformers will refuse
            return None


class PlainConfig(SimpleNamespace):
    """The content of a config.json with the attributes of transformers' own configurations."""

    model_type = ""
    pad_token_id = None

    def get_text_config(self) -> PlainConfig:
        """Return the part for texts of a model that reads other things as well."""
        part = getattr(self, "text_config", None)
        return PlainConfig(**part) if isinstance(part, dict) else self


def read_card(folder: Path) -> dict[str, Any]:
    """Return the metadata at the beginning of a model's README.md; empty if there are none that can be read."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            metadata = re.match(r"---\n(.*?)\n---", file.read(safe_yaml.LIMIT), re.DOTALL)
        content = safe_yaml.read(metadata[1]) if metadata else {}
    except (OSError, safe_yaml.NotYamlError):
        return {}
    return content if isinstance(content, dict) else {}


def list_local_models(base_models_dir: Path | None) -> list[LocalModel]:
    """Return the base models on this machine, each name once: a folder comes before the hub's cache, as in `resolve`."""
    sample, *language_models = (LocalModel(name, "sample") for name in installed_samples())
    models = {sample.name: sample}
    for model in [*_folders(base_models_dir), *_cached(), *language_models]:
        models.setdefault(model.name, model)
    return list(models.values())


def installed_samples() -> list[str]:
    """Return the sample base models: the language model only where its package is installed."""
    names = [SAMPLE_MODEL]
    with suppress(FileNotFoundError):
        converted_path()
        names.append(SAMPLE_LANGUAGE_MODEL)
    return names


def _folders(root: Path | None) -> Iterator[LocalModel]:
    """Yield the folders that a configuration can name: NAME, and OWNER/NAME as on the hub."""
    if root is None or not root.is_dir():
        return
    for file in sorted([*root.glob("*/config.json"), *root.glob("*/*/config.json")]):
        name = file.parent.relative_to(root).as_posix()
        if _is_name(name):
            yield LocalModel(name, "folder", file.parent)


def _cached() -> Iterator[LocalModel]:
    """Yield the whole models of the hub's cache. Others, such as data sets and interrupted downloads, are left out."""
    from huggingface_hub import constants  # deferred: a model that is here needs no hub client

    for entry in sorted(Path(constants.HF_HUB_CACHE).glob(f"{CACHE_PREFIX}*")):
        name = entry.name.removeprefix(CACHE_PREFIX).replace("--", "/")
        if not _is_name(name):
            continue
        recommended = find_recommended(name)
        folder = find_cached(name, None)
        if folder is None and recommended and recommended.revision:
            folder = find_cached(name, recommended.revision)
        if folder and not is_incomplete(folder, name):
            yield LocalModel(name, "hub_cache", folder)


def _is_name(name: str) -> bool:
    """Return whether a configuration may call a base model so."""
    patterns = [rule.pattern for rule in ModelSection.model_fields["name"].metadata if getattr(rule, "pattern", None)]
    return all(re.match(pattern, name) for pattern in patterns)
