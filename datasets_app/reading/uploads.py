"""Keep uploads between being sent and being stored: a folder each, for one day, only for the person who sent it."""

import json
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest

from accounts.models import User
from datasets_app.reading.archives import copy_stream, too_large
from web.disk import require_disk_space
from web.errors import NotFoundError

KEPT_SECONDS = 24 * 3600
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_FORM_BYTES = 1 << 20  # what a form's other fields may add to the file


@dataclass(frozen=True)
class PendingUpload:
    """An upload that is not stored yet."""

    token: str
    file: Path
    filename: str


def _root() -> Path:
    return Path(settings.FILE_UPLOAD_TEMP_DIR) / "pending"


def keep_upload(*, user: User, files: Sequence[UploadedFile]) -> PendingUpload:
    """Copy an upload to disk under a random token; several files become one ZIP archive.

    Uploads that were not stored within a day are deleted first.
    """
    oldest = time.time() - KEPT_SECONDS
    for folder in _root().glob("*"):
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)
    require_disk_space(sum(file.size or 0 for file in files))
    token = secrets.token_urlsafe(32)
    folder = _root() / token
    folder.mkdir(parents=True)
    try:
        if len(files) == 1:
            copy_stream(cast(BinaryIO, files[0].file), folder / "data", limit=settings.UPLOAD_LIMIT)
            filename = str(files[0].name)[:200]
        else:
            _pack(files, folder / "data")
            filename = f"{Path(str(files[0].name)).stem[:100]} and others.zip"
        about = {"user": user.pk, "filename": filename}
        (folder / "about.json").write_text(json.dumps(about))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return PendingUpload(token, folder / "data", filename)


def _pack(files: Sequence[UploadedFile], target: Path) -> None:
    """Write several files into one archive, unpacked, as they would be read from a ZIP archive that a person sent."""
    if sum(file.size or 0 for file in files) > settings.UPLOAD_LIMIT:
        raise too_large(settings.UPLOAD_LIMIT)
    with zipfile.ZipFile(target, "w") as archive:
        for file in files:
            with archive.open(str(file.name)[:200], "w") as out:
                shutil.copyfileobj(cast(BinaryIO, file.file), out)


def pending_for(user: User, token: str) -> PendingUpload:
    """Return the upload with this token if the person sent it; raise NotFoundError otherwise."""
    folder = _root() / token
    if not _TOKEN.fullmatch(token) or not (folder / "about.json").exists():
        raise NotFoundError
    about = json.loads((folder / "about.json").read_text())
    if about["user"] != user.pk:
        raise NotFoundError
    return PendingUpload(token, folder / "data", about["filename"])


def discard_upload(pending: PendingUpload) -> None:
    """Delete an upload; do nothing if it is gone."""
    shutil.rmtree(pending.file.parent, ignore_errors=True)


def limits_upload(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a view to refuse a body over the limit before any of it is parsed.

    The web server has not kept such a body, and has read enough of it for the client to listen to the answer.
    """

    @wraps(view)
    def limited_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length > settings.UPLOAD_LIMIT + _FORM_BYTES:
            raise too_large(settings.UPLOAD_LIMIT)
        return view(request, *args, **kwargs)

    return limited_view
