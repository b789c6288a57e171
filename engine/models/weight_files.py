"""Check the files of a base model's folder by their names, sizes and headers. No weight is read, so this takes milliseconds.

Imports neither torch nor transformers, so that the platform can check a folder before it queues a run.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import BaseModelUnavailableError, BaseModelUnsafeError
from engine.models.recommended import find_recommended
from engine.sentences import Sentence, gettext_noop

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
LFS_POINTER = b"version https://git-lfs"
MOST_HEADER_BYTES = 100 * 10**6  # the limit of the safetensors library
VOCABULARY_FILES = ("tokenizer.json", "*vocab*", "*.model", "dict.txt", "*.tiktoken")
# Tokenizers that read bytes or characters have no vocabulary.
TYPES_WITHOUT_VOCABULARY = {"canine", "perceiver"}
TOKENIZERS_WITHOUT_VOCABULARY = {"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"}
DOWNLOAD_AGAIN = gettext_noop("Download the model again, with all of its files.")


def check_folder(folder: Path, name: str) -> None:
    """Check everything in a base model's folder that can be checked without transformers.

    Raises BaseModelUnavailableError, or BaseModelUnsafeError, both beside model.name.
    """
    read_config(folder, name)
    check_weights(folder, name)
    check_tokenizer(folder, name)


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of config.json; raise BaseModelUnsafeError if it asks for code of the model's own."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unavailable(name, Sentence(gettext_noop("has no readable config.json."))) from error
    if not isinstance(config, dict) or "auto_map" in json.dumps(config):
        raise BaseModelUnsafeError(
            Sentence(
                gettext_noop(
                    "The base model {name} needs code of its own (auto_map), which is never run. Choose another model."
                ),
                name=name,
            ),
            field="model.name",
        )
    return config


def check_weights(folder: Path, name: str) -> None:
    """Raise BaseModelUnavailableError unless each safetensors file that would be loaded is there and whole.

    Raises BaseModelUnsafeError if there are none at all, since other formats can run code.
    """
    for path in weight_files(folder, name):
        try:
            fault = find_fault(path)
        except OSError as error:
            raise _unavailable(
                name,
                Sentence(
                    gettext_noop("can't be used: {name} can't be read ({strerror})."),
                    name=path.name,
                    strerror=error.strerror,
                ),
            ) from error
        if fault:
            raise _unavailable(
                name,
                Sentence(
                    gettext_noop("can't be used: {name} is {fault}. {advice}"),
                    name=path.name,
                    fault=fault,
                    advice=Sentence(DOWNLOAD_AGAIN),
                ),
            )


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the files that transformers would load: model.safetensors, or else the parts that its index lists."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _parts(folder, name)
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if not others:
        recommended = find_recommended(name)
        advice = Sentence(gettext_noop("Convert them to safetensors first."))
        if recommended and recommended.revision:
            advice = Sentence(
                gettext_noop("Set model.revision to {revision}, which has the same weights as safetensors."),
                revision=recommended.revision,
            )
        raise BaseModelUnsafeError(
            Sentence(
                gettext_noop(
                    "The base model {name} has no safetensors weights. Pickled weights are refused, because they can run "
                    "code. {advice}"
                ),
                name=name,
                advice=advice,
            ),
            field="model.name",
        )
    if others == [ADAPTER]:
        raise _unavailable(
            name, Sentence(gettext_noop("is an adapter only. Enter the base model that the adapter was trained for."))
        )
    if any("-of-" in other for other in others):
        raise _unavailable(
            name,
            Sentence(
                gettext_noop("is in parts, but lacks {index}, which says what each part holds. {advice}"),
                index=INDEX,
                advice=Sentence(DOWNLOAD_AGAIN),
            ),
        )
    raise _unavailable(
        name,
        Sentence(gettext_noop("has no {weights}. {advice}"), weights=WEIGHTS, advice=Sentence(DOWNLOAD_AGAIN)),
    )


def _parts(folder: Path, name: str) -> list[Path]:
    """Return the files that the index of a model in parts lists; raise BaseModelUnavailableError if one is missing."""
    try:
        parts = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        leads_out = any(PurePosixPath(part).is_absolute() or ".." in PurePosixPath(part).parts for part in parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unavailable(
            name,
            Sentence(gettext_noop("has no readable {index}. {advice}"), index=INDEX, advice=Sentence(DOWNLOAD_AGAIN)),
        ) from error
    if leads_out or not parts:
        raise _unavailable(
            name,
            Sentence(
                gettext_noop("has an {index} that does not list the files of this folder. {advice}"),
                index=INDEX,
                advice=Sentence(DOWNLOAD_AGAIN),
            ),
        )
    missing = [part for part in parts if not (folder / part).is_file()]
    if missing:
        count = Sentence(
            gettext_noop("{missing} of its {parts} parts: {first}"),
            missing=len(missing),
            parts=len(parts),
            first=missing[0],
        )
        raise _unavailable(
            name,
            Sentence(
                gettext_noop("lacks {count}{more}. {advice}"),
                count=count,
                more=Sentence(gettext_noop(" and more")) if len(missing) > 1 else "",
                advice=Sentence(DOWNLOAD_AGAIN),
            ),
        )
    return [folder / part for part in parts]


def find_fault(path: Path) -> str | None:
    """Return what a file is instead of a whole safetensors file, by its size and header; None if it is whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
        if not start:
            return Sentence(gettext_noop("empty (0 bytes)"))
        if start == LFS_POINTER:
            return Sentence(
                gettext_noop(
                    "a git-LFS pointer ({size} bytes) and not the weights themselves; git lfs pull fetches them"
                ),
                size=size,
            )
        length = int.from_bytes(start[:8], "little")
        if length > MOST_HEADER_BYTES or start[8:9] not in (b"{", b""):
            return Sentence(gettext_noop("not a safetensors file ({size:,} bytes)"), size=size)
        file.seek(8)
        header = file.read(length)
    if len(header) < length:
        return Sentence(gettext_noop("cut off ({size:,} bytes)"), size=size)
    try:
        ends = [entry["data_offsets"][1] for key, entry in json.loads(header).items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Sentence(gettext_noop("not a safetensors file ({size:,} bytes)"), size=size)
    if size < expected:
        return Sentence(gettext_noop("cut off ({size:,} of {expected:,} bytes)"), size=size, expected=expected)
    if size == expected:
        return None
    return Sentence(
        gettext_noop("damaged ({size:,} bytes, where its header says {expected:,})"), size=size, expected=expected
    )


def count_parameters(folder: Path, name: str) -> int:
    """Return how many numbers the weights in a folder are, by the headers of their files.

    Raises BaseModelUnavailableError or BaseModelUnsafeError without weights, and OSError, ValueError, KeyError or TypeError if a
    header is damaged.
    """
    total = 0
    for path in weight_files(folder, name):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MOST_HEADER_BYTES:
                raise ValueError(f"{path.name} has no header")
            header = json.loads(file.read(length))
        total += sum(prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    return total


def check_tokenizer(folder: Path, name: str) -> None:
    """Raise BaseModelUnavailableError unless the folder has a tokenizer's vocabulary, in files that are whole.

    Without one, transformers makes a tokenizer of nothing but special tokens, to which every word is unknown.
    """
    files = sorted({path for pattern in VOCABULARY_FILES for path in folder.glob(pattern)})
    if not files and not _needs_no_vocabulary(folder):
        raise _unavailable(
            name,
            Sentence(
                gettext_noop(
                    "has no tokenizer: its folder lacks tokenizer.json, and the older vocab.txt, vocab.json or *.model. Save "
                    "the tokenizer into the same folder as the model."
                )
            ),
        )
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
        if size == 0 or start == LFS_POINTER:
            fault = gettext_noop("a git-LFS pointer ({size} bytes)") if size else gettext_noop("empty (0 bytes)")
            raise _unavailable(
                name,
                Sentence(
                    gettext_noop("can't be used: {name} is {fault}. {advice}"),
                    name=path.name,
                    fault=Sentence(fault, size=size),
                    advice=Sentence(DOWNLOAD_AGAIN),
                ),
            )


def _needs_no_vocabulary(folder: Path) -> bool:
    """Return whether the folder's own settings name a tokenizer of bytes or characters."""
    settings: dict[str, Any] = {}
    for file in ("config.json", "tokenizer_config.json"):
        try:
            settings |= json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            continue
    is_known_type = settings.get("model_type") in TYPES_WITHOUT_VOCABULARY
    return is_known_type or settings.get("tokenizer_class") in TOKENIZERS_WITHOUT_VOCABULARY


def _unavailable(name: str, fault: str) -> BaseModelUnavailableError:
    """Return the error for a base model; `fault` goes on where its name ends."""
    return BaseModelUnavailableError(
        Sentence(gettext_noop("The base model {name} {fault}"), name=name, fault=fault), field="model.name"
    )
