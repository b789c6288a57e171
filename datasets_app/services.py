"""Everything that changes datasets, under one name; each part lies in the module of its package."""

from datasets_app.checks.token_counting import count_tokens
from datasets_app.review.decisions import decide
from datasets_app.sample_datasets import load_samples
from datasets_app.tasks import cancel, submit
from datasets_app.versions.creation import (
    PreparedVersion,
    check_name,
    create_version,
    insert,
    prepare,
    prepare_file,
    read_rows,
)
from datasets_app.versions.deletion import delete, remove
from datasets_app.versions.upload_storage import AT_ONCE, store_pending, store_upload, submit_upload

__all__ = [
    "AT_ONCE",
    "PreparedVersion",
    "cancel",
    "check_name",
    "count_tokens",
    "create_version",
    "decide",
    "delete",
    "insert",
    "load_samples",
    "prepare",
    "prepare_file",
    "read_rows",
    "remove",
    "store_pending",
    "store_upload",
    "submit",
    "submit_upload",
]
