"""Find a base model: in the sample package, a folder, the hub's cache, or on the hub. No code of a model is ever run."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from engine.errors import BaseModelUnavailableError, BaseModelUnsafeError
from engine.models.weight_files import check_folder, check_weights, read_config
from engine.sentences import Sentence, gettext_noop

HUB_TIMEOUT_S = 2.5
FILE_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]


def resolve(name: str, base_models_dir: Path | None, revision: str | None = None) -> Path:
    """Return the folder of a base model; see engine.resolve_base_model for places and errors."""
    from samples import SAMPLE_BASE_MODEL, SAMPLE_LANGUAGE_MODEL, base_model_path, language_model_path

    if name == SAMPLE_BASE_MODEL:
        with suppress(FileNotFoundError):
            return (
                base_model_path()
            )  # our own, so it needs no check, which takes two seconds and 200 MB of transformers

    folder: Path | None = None
    if base_models_dir is not None:
        root = base_models_dir.resolve()
        local = (root / name).resolve()
        # The name comes from a stranger: ../ and links must not lead out of the folder.
        if local.is_relative_to(root) and local != root and (local / "config.json").is_file():
            folder = local
    if folder is None:
        folder = find_cached(name, revision)
        if folder is None and name == SAMPLE_LANGUAGE_MODEL:  # the original, where it is here, has more than 4 bits
            with suppress(FileNotFoundError):
                return language_model_path()
        if folder is None or (is_incomplete(folder, name) and can_download()):
            folder = download(name, revision)
    check_safe(folder, name)
    return folder


def needs_conversion(name: str, base_models_dir: Path | None, revision: str | None = None) -> bool:
    """Return whether `resolve` will convert the sample language model first, which takes some twenty seconds."""
    from samples import SAMPLE_LANGUAGE_MODEL
    from samples.language_model import converted_path

    if name != SAMPLE_LANGUAGE_MODEL or find_cached(name, revision) is not None:
        return False
    if base_models_dir is not None and (base_models_dir / name / "config.json").is_file():
        return False
    with suppress(FileNotFoundError):
        return not converted_path().is_dir()
    return False


def check_safe(folder: Path, name: str) -> None:
    """Raise BaseModelUnsafeError unless transformers has the model's code and its weights are safetensors.

    Raises BaseModelUnavailableError if config.json or a file of the weights is missing or damaged.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # deferred: takes seconds

    config = read_config(folder, name)
    if str(config.get("model_type")) not in CONFIG_MAPPING:
        raise BaseModelUnsafeError(
            Sentence(
                gettext_noop(
                    "The base model {name} has the unknown type {type}. Choose a model that transformers supports."
                ),
                name=name,
                type=repr(config.get("model_type")),
            ),
            field="model.name",
        )
    check_weights(folder, name)


def find_cached(name: str, revision: str | None) -> Path | None:
    """Return the folder of a model in the hub's cache on this machine; None without config.json or any weights."""
    from huggingface_hub import snapshot_download  # deferred: a model that is here needs no hub client
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=FILE_PATTERNS, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        return None
    return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


def is_incomplete(folder: Path, name: str) -> bool:
    """Return whether a folder of the hub's cache lacks files, as after a download that was interrupted."""
    try:
        check_folder(folder, name)
    except BaseModelUnavailableError:
        return True
    except BaseModelUnsafeError:
        return False  # more files would not make it any safer
    return False


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids to ask the hub."""
    return os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "TRUE"}


def can_download() -> bool:
    """Return whether the hub may be asked and answers. If it does not, that takes seconds."""
    from huggingface_hub import constants  # deferred: a model that is here needs no hub client

    return not is_offline() and is_reachable(constants.ENDPOINT)


def download(name: str, revision: str | None) -> Path:
    """Download a model from the hub and return its folder in the hub's cache. Raises BaseModelUnavailableError."""
    from huggingface_hub import snapshot_download  # deferred: a model that is here needs no hub client
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if not can_download():
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop(
                    "The base model {name} is not on this machine and the model hub can't be reached. Put its folder under "
                    "BASE_MODELS_DIR, choose a model that is here, or try again when the hub is reachable."
                ),
                name=name,
            ),
            field="model.name",
        )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILE_PATTERNS))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop("The model hub has no model {name}{revision}, or it is private. Check the name."),
                name=name,
                revision=Sentence(gettext_noop(" at {revision}"), revision=revision) if revision else "",
            ),
            field="model.name",
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop(
                    "The base model {name} could not be downloaded from the model hub ({error}). Try again later."
                ),
                name=name,
                error=type(error).__name__,
            ),
            field="model.name",
        ) from error


def is_reachable(endpoint: str) -> bool:
    """Return whether a connection to the hub, or to the proxy in HTTPS_PROXY, opens within HUB_TIMEOUT_S.

    It is tried in a thread, because name resolution has no timeout of its own.
    """
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    address = urlsplit(proxy or endpoint)
    reached: list[bool] = []

    def connect() -> None:
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            with socket.create_connection((address.hostname or "", port), timeout=HUB_TIMEOUT_S):
                reached.append(True)
        except OSError:
            reached.append(False)

    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    return bool(reached and reached[0])


def find_origin(folder: Path) -> str:
    """Return where a resolved base model lies: "sample" for the sample packages, "hub" for the hub's cache, else "folder"."""
    from huggingface_hub import constants  # deferred: a model that is here needs no hub client

    from samples import base_model_path
    from samples.language_model import converted_path

    for sample_path in (base_model_path, converted_path):
        with suppress(FileNotFoundError):
            if folder == sample_path():
                return "sample"
    return "hub" if folder.is_relative_to(constants.HF_HUB_CACHE) else "folder"
