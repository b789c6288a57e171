"""Fetch a data set of the model hub by its id: pin its revision first, then store all its splits as one Parquet file."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.models import User
from datasets_app import tasks
from datasets_app.models import DataTask
from datasets_app.progress import ReportProgress, ignore_progress
from datasets_app.versions.creation import (
    PreparedVersion,
    StoreOptions,
    check_name,
    insert_as_result,
    prepare_file,
)
from engine.storage import write_file
from web.errors import InvalidError

TIMEOUT_S = 3.0


def pin_revision(identifier: str, revision: str | None = None) -> str:
    """Return the commit that the revision (by default the newest) means now.

    Raises InvalidError, within seconds if the hub is away.
    """
    from huggingface_hub import HfApi  # slow to import, and only a fetch needs it
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    facts = {"name": identifier[:100], "revision": (revision or "")[:80]}
    refuse_folder(identifier)
    try:
        return str(HfApi().dataset_info(identifier, revision=revision or None, timeout=TIMEOUT_S).sha)
    except HFValidationError:
        raise InvalidError(_("A data set of the hub has an id such as “owner/name”."), field="hub") from None
    except RevisionNotFoundError:
        message = _("The data set %(name)s has no revision “%(revision)s” on the hub. Leave it out for the newest.")
        raise InvalidError(message % facts, field="revision") from None
    except RepositoryNotFoundError:
        message = _("The model hub has no data set %(name)s, or it is private. Check the id.")
        raise InvalidError(message % facts, field="hub") from None
    except Exception as error:  # each HTTP library below the hub client has its own error for "unreachable"
        message = _(
            "The model hub can't be reached from here, so %(name)s was not fetched and nothing was stored. Try again when "
            "there is a connection, or download the file elsewhere and upload it."
        )
        raise InvalidError(message % facts, field="hub", reason="hub_unreachable") from error


def submit_fetch(
    *, user: User, name: str, identifier: str, revision: str | None = None, **options: str | None
) -> DataTask:
    """Fetch a data set of the hub by a task, pinned to the commit that the revision (by default the newest) means now.

    `options`: `config`, and those of `StoreOptions`.
    """
    check_name(user, name)
    commit = pin_revision(identifier, revision)
    arguments = {"hub": identifier, "revision": commit, **options}
    return tasks.submit(user=user, kind=DataTask.Kind.HUB, name=name, arguments=arguments)


def fetch_for_task(task: DataTask, report: ReportProgress) -> Callable[[], dict[str, Any]]:
    """Fetch and check the data set of a task; return the function that stores it."""
    refuse_folder(task.arguments["hub"])
    prepared = prepare_dataset(user=task.owner, name=task.name, report=report, **task.arguments)
    return partial(insert_as_result, prepared)


def prepare_dataset(
    *,
    user: User,
    name: str,
    hub: str,
    revision: str,
    config: str | None = None,
    report: ReportProgress = ignore_progress,
    **options: Unpack[StoreOptions],
) -> PreparedVersion:
    """Fetch a data set of the hub, check it and write its rows to disk."""
    with tempfile.TemporaryDirectory(prefix="hub-", dir=settings.FILE_UPLOAD_TEMP_DIR) as folder:
        file = Path(folder) / "data.parquet"
        report("fetching")
        fetch(hub, config, revision, file, report_progress=partial(report, "fetching"))
        filename = f"{hub}@{revision[:12]}"
        prepared = prepare_file(user=user, name=name, file=file, filename=filename, report=report, **options)
    prepared.version.source |= {"filename": filename, "hub": hub, "config": config, "revision": revision}
    return prepared


def refuse_folder(identifier: str) -> None:
    """Raise InvalidError if the id is also a folder of this machine.

    The `datasets` library would read that folder instead of the hub.
    """
    if Path(identifier).exists():
        message = _("%(name)s is no data set of the hub.") % {"name": identifier[:100]}
        raise InvalidError(message, field="hub")


def fetch(
    identifier: str,
    config: str | None,
    revision: str | None,
    target: Path,
    *,
    label_column: str | None = None,
    report_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Download all splits into one Parquet file, which is there whole or not at all. Runs no code of the data set.

    The hub stores labels as numbers with names beside them. They become names, in all columns or in `label_column` alone;
    rows of -1 have no label.
    """
    import polars as pl  # both are slow to import, and only a fetch needs them
    from datasets import load_dataset

    try:
        splits: Mapping[str, Any] = load_dataset(identifier, config or None, revision=revision)
    except Exception as error:  # the library has no common error; its sentence says which of many causes it was
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        message = _("The data set %(name)s could not be read from the hub: %(reason)s")
        raise InvalidError(message % {"name": identifier, "reason": reason}, field="data.dataset_name") from error
    frames = []
    for number, (name, split) in enumerate(splits.items()):
        report_progress(number, len(splits))
        frame = split.to_polars().with_columns(split=pl.lit(name))
        for column, feature in split.features.items():
            names = getattr(feature, "names", None)
            if names and label_column in (None, column):
                label = pl.col(column).replace_strict(dict(enumerate(names)), default=None, return_dtype=pl.String)
                frame = frame.with_columns(label)
        frames.append(frame)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, pl.concat(frames, how="diagonal_relaxed").write_parquet)
