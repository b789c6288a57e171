"""Store an upload: a small one in the request, a large one by a task of the queue."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Unpack, cast

from django.db import transaction

from accounts.idempotency import KeyOfOtherModelError, create_once, find_created, fingerprint
from accounts.models import User
from datasets_app.models import DataTask, Version
from datasets_app.progress import ReportProgress
from datasets_app.reading.uploads import PendingUpload, discard_upload, pending_for
from datasets_app.tasks import submit
from datasets_app.versions.creation import (
    StoreOptions,
    check_name,
    create_version,
    insert_as_result,
    prepare_file,
    upload_fingerprint,
)

log = logging.getLogger(__name__)
AT_ONCE = 512 * 1024  # bytes of an unpacked file that are checked within about a second; more goes into the queue
CHECKS_AT_A_TIME = 2  # files that one web server checks at once; its other threads keep answering requests
_WAIT_SECONDS = 0.5  # for a free slot; after that the queue takes the file
check_slots = threading.BoundedSemaphore(CHECKS_AT_A_TIME)


def store_upload(
    *,
    user: User,
    name: str,
    pending: PendingUpload,
    idempotency_key: str | None = None,
    digest: str = "",
    **options: Unpack[StoreOptions],
) -> Version | DataTask:
    """Store a small upload and return its version; else queue it and return the task.

    The size is that of the unpacked file. A small upload is queued too while all slots are taken. An upload that is refused
    is kept, so that it can be sent again with other options. `digest`: what the key is bound to, by default the request.
    """
    # pyarrow and polars take half a second to import
    from datasets_app.reading.archives import FileTooLargeError
    from datasets_app.reading.sandbox import QUICK_SECONDS, ReadersBusyError

    # The key comes before the name: what it made may have been given away, and then the name is another person's.
    if idempotency_key:
        digest = digest or upload_fingerprint(pending.file, name, options)
        if earlier := find_stored(user, idempotency_key, digest):
            return earlier
    check_name(user, name)
    if pending.file.stat().st_size <= AT_ONCE and check_slots.acquire(timeout=_WAIT_SECONDS):
        try:
            version = create_version(
                user=user,
                name=name,
                file=pending.file,
                filename=pending.filename,
                idempotency_key=idempotency_key,
                digest=digest,
                limit=AT_ONCE,
                seconds=QUICK_SECONDS,
                **options,
            )
            discard_upload(pending)
            return version
        except (FileTooLargeError, ReadersBusyError) as error:
            log.info("The data worker reads the upload for %s: %s", name, error)
        finally:
            check_slots.release()
    return submit_upload(
        user=user, name=name, pending=pending, idempotency_key=idempotency_key, digest=digest, **options
    )


def key_of_page(token: str) -> tuple[str, str]:
    """Return the idempotency key of a preview page, and what it is bound to: pressing its button twice stores once."""
    return f"upload:{token}", fingerprint("upload", token)


def find_stored(user: User, key: str, digest: str) -> Version | DataTask | None:
    """Return the version or the task that the key created."""
    for created in (Version.objects.all(), DataTask.objects.all()):
        with suppress(KeyOfOtherModelError):
            earlier = find_created(user, key, digest, created)
            if earlier:
                return cast("Version | DataTask", earlier)
    return None


def submit_upload(
    *,
    user: User,
    name: str,
    pending: PendingUpload,
    idempotency_key: str | None = None,
    digest: str = "",
    **options: Unpack[StoreOptions],
) -> DataTask:
    """Let the queue read, check and store an upload."""
    if idempotency_key and not digest:
        digest = upload_fingerprint(pending.file, name, options)
    arguments = {"token": pending.token, **options}
    create = partial(submit, user=user, kind=DataTask.Kind.STORE, name=name, arguments=arguments)
    return create_once(user, idempotency_key, digest, DataTask.objects.all(), create)


def store_pending(task: DataTask, report: ReportProgress) -> Callable[[], dict[str, Any]]:
    """Read and check the upload of a task; return the function that stores it."""
    options = dict(task.arguments)
    pending = pending_for(task.owner, options.pop("token"))
    prepared = prepare_file(
        user=task.owner, name=task.name, file=pending.file, filename=pending.filename, report=report, **options
    )

    def store() -> dict[str, Any]:
        transaction.on_commit(partial(discard_upload, pending))
        return insert_as_result(prepared)

    return store
