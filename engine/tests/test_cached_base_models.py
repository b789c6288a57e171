"""Base models in the hub's cache on this machine: whole ones need no hub, and the rest of an interrupted download is fetched."""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from engine.errors import BaseModelUnavailableError, BaseModelUnsafeError
from engine.models.base_models import find_origin, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "somebody/tiny"


@pytest.fixture
def cached(bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a whole base model in the cache; there is no hub."""
    folder = tmp_path / "models--somebody--tiny"
    snapshot = Path(shutil.copytree(bases / "tiny", folder / "snapshots" / COMMIT))
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return snapshot


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that can be reached but never answers."""
    for proxy in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield


def test_whole_model_needs_no_hub(cached):
    assert resolve(NAME, None) == cached and find_origin(cached) == "hub"


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json"])
def test_rest_of_an_interrupted_download_is_fetched_where_the_hub_is_reachable(cached, hub, missing, monkeypatch):
    fetched: list[str] = []

    def download(name: str) -> str:
        fetched.append(name)
        (cached / missing).write_bytes(content)
        return str(cached)

    def find_or_download(name: str, **options: object) -> str:
        return find(name, **options) if options.get("local_files_only") else download(name)

    content = (cached / missing).read_bytes()
    (cached / missing).unlink()
    find: Callable[..., str] = huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub, "snapshot_download", find_or_download)
    assert resolve(NAME, None) == cached and fetched == [NAME]


def test_without_a_hub_the_missing_file_is_named(cached):
    (cached / "tokenizer.json").unlink()
    (cached / "model.safetensors").write_bytes(b"")
    with pytest.raises(BaseModelUnavailableError, match=r"model.safetensors is empty"):
        resolve(NAME, None)


def test_model_with_code_of_its_own_is_not_downloaded_again(cached, hub):
    (cached / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(BaseModelUnsafeError, match="auto_map"):
        resolve(NAME, None)
