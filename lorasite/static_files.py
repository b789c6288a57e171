"""Static files under names that hold a hash of their content, compressed, so that browsers keep them for ever."""

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import HashedFilesMixin
from django.core.management import call_command
from whitenoise.storage import CompressedManifestStaticFilesStorage

log = logging.getLogger(__name__)

# Large, and no page has them: documentation in another look, DRF's own pages, sources of what is minified.
LEFT_OUT = ["redoc", "rest_framework", "*.map"]
STAMP = ".collected"  # in STATIC_ROOT: which sources its files were made of
# url() and @import. Django's third pattern is for the sources that are left out.
CSS_ADDRESSES = HashedFilesMixin.patterns[0][1][:2]
IMPORTS = HashedFilesMixin._js_module_import_aggregation_patterns[1]  # type: ignore[attr-defined]  # only the switch for all files is public


class HashedStaticFilesStorage(CompressedManifestStaticFilesStorage):
    # Imports get their hash in our scripts only: the patterns may misread the minified code of others.
    patterns = (("*.css", CSS_ADDRESSES), ("lorasite/*.js", IMPORTS))

    def stored_name(self, name: str) -> str:
        """Return the name with its hash, or the plain one, which is served as well, if the file was not collected."""
        try:
            stored: str = super().stored_name(name)
        except ValueError:
            return name
        return stored


def collect_static_files() -> None:
    """Fill STATIC_ROOT, unless it has the files of this release already, as it does in a container.

    A disk that refuses them must not keep the site from starting: pages then name the plain files.
    """
    try:
        with lock_static_root():
            fingerprint = fingerprint_of_sources()
            stamp = Path(settings.STATIC_ROOT) / STAMP
            if stamp.is_file() and stamp.read_text() == fingerprint:
                return
            call_command("collectstatic", interactive=False, verbosity=0, ignore_patterns=LEFT_OUT)
            stamp.write_text(fingerprint)
    except OSError as error:
        log.warning("Static files could not be collected, so they are sent uncompressed: %s", error)


@contextmanager
def lock_static_root() -> Iterator[None]:
    """Let one process at a time fill the folder. A process that may not write there finds it filled, or gives up later."""
    folder = Path(settings.STATIC_ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def fingerprint_of_sources() -> str:
    """Return a hash of the names, sizes and times of all source files: reading them would take longer than the rest."""
    sources: list[tuple[Any, ...]] = []
    for finder in finders.get_finders():
        for path, storage in finder.list(LEFT_OUT):
            status = os.stat(storage.path(path))
            sources.append((path, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(sorted(sources)).encode()).hexdigest()
