"""Static files with hashed names: collected once for a release, compressed, and kept by browsers for ever."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.templatetags.static import static
from django.test import RequestFactory
from whitenoise.middleware import WhiteNoiseMiddleware

from lorasite.static_files import collect_static_files

STYLE = "body { margin: 0; background: url(back.svg); } /* long enough to be worth compressing */\n" * 20


@pytest.fixture
def sources(tmp_path: Path, settings: Any) -> Path:
    """A folder with a few static files, the only one of the site; STATIC_ROOT is empty."""
    folder = tmp_path / "sources"
    (folder / "lorasite").mkdir(parents=True)
    (folder / "lorasite" / "look.css").write_text(STYLE)
    (folder / "lorasite" / "back.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "lorasite" / "main.js").write_text('import { zoom } from "./zoom.js";\nzoom();\n')
    (folder / "lorasite" / "zoom.js").write_text("export function zoom() {}\n")
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATICFILES_DIRS = [folder]
    settings.STATIC_ROOT = tmp_path / "collected"
    settings.WHITENOISE_AUTOREFRESH = False
    settings.STORAGES = {
        **django_settings.STORAGES,
        "staticfiles": {"BACKEND": "lorasite.static_files.HashedStaticFilesStorage"},
    }
    return folder


def collected(name: str) -> Path:
    return Path(django_settings.STATIC_ROOT) / static(name).removeprefix("/static/")


def get_file(address: str) -> Any:
    middleware = WhiteNoiseMiddleware(lambda request: None)
    return middleware(RequestFactory().get(address, headers={"Accept-Encoding": "gzip"}))


def test_collected_file_is_compressed_and_kept_for_ever(sources: Path) -> None:
    collect_static_files()
    address = static("lorasite/look.css")
    assert address.startswith("/static/lorasite/look.") and address != "/static/lorasite/look.css"
    answer = get_file(address)
    assert "immutable" in answer["Cache-Control"] and answer["Content-Encoding"] == "gzip"
    content = gzip.decompress(b"".join(answer.streaming_content)).decode()
    assert static("lorasite/back.svg").rpartition("/")[2] in content


def test_plain_name_is_still_served_but_not_for_ever(sources: Path) -> None:
    collect_static_files()
    answer = get_file("/static/lorasite/look.css")
    assert answer.status_code == 200 and "immutable" not in answer["Cache-Control"]


def test_script_imports_the_hashed_name_of_another_one(sources: Path) -> None:
    collect_static_files()
    script = collected("lorasite/main.js").read_text()
    assert static("lorasite/zoom.js").rpartition("/")[2] in script


def test_second_start_collects_nothing_and_a_changed_file_is_collected(sources: Path) -> None:
    collect_static_files()
    first = static("lorasite/look.css")
    file = collected("lorasite/look.css")
    file.unlink()
    collect_static_files()
    assert not file.exists()
    (sources / "lorasite" / "look.css").write_text(STYLE.replace("0", "1px"))
    collect_static_files()
    assert static("lorasite/look.css") != first


def test_site_starts_with_plain_names_where_nothing_can_be_written(
    sources: Path, tmp_path: Path, settings: Any
) -> None:
    (tmp_path / "collected").mkdir()
    (tmp_path / "collected" / "lorasite").write_text("a file where a folder is needed")
    collect_static_files()
    assert static("lorasite/look.css") == "/static/lorasite/look.css"


@pytest.mark.slow
def test_all_files_of_a_release_can_be_collected(tmp_path: Path, settings: Any) -> None:
    settings.STATIC_ROOT = tmp_path / "collected"
    settings.STORAGES = {
        **django_settings.STORAGES,
        "staticfiles": {"BACKEND": "lorasite.static_files.HashedStaticFilesStorage"},
    }
    collect_static_files()
    for name in ("lorasite/lorasite.css", "django_htmx/htmx-2.min.js", "unfold/js/chart/chart.js"):
        assert static(name) != f"/static/{name}"
        assert collected(name).with_name(f"{collected(name).name}.gz").exists()
