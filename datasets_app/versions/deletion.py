"""Delete a dataset, and the rows that no other version needs."""

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import removals
from accounts.models import Removal, User
from audit.services import record
from datasets_app.models import Dataset, Version
from web.errors import ConflictError
from work.paths import remove_on_commit


def carry_out_removal(user: User, dataset: Dataset) -> None:
    """Delete a dataset that was removed on a page a while ago. `Dataset.removed_by` names this function."""
    delete(user=user, dataset=dataset)


def require_unused(dataset: Dataset) -> None:
    """Raise ConflictError if runs use the dataset."""
    runs = list(dataset.versions.filter(experiments__isnull=False).values_list("experiments__name", flat=True))
    if runs:
        message = _(
            "This dataset is used by %(runs)s. Nothing was deleted: a run needs its dataset to be reproducible."
        )
        shown = ", ".join(runs[:5]) + (" …" if len(runs) > 5 else "")
        raise ConflictError(message % {"runs": shown}, experiments=runs[:50])


@transaction.atomic
def remove(*, user: User, dataset: Dataset) -> Removal | None:
    """Hide the dataset, and delete it later; refused as `delete` is."""
    require_unused(dataset)
    return removals.remove(user=user, obj=dataset)


@transaction.atomic
def delete(*, user: User, dataset: Dataset) -> None:
    """Delete a dataset with all its versions; raise ConflictError if runs use it."""
    require_unused(dataset)
    versions = Version.objects.filter(dataset=dataset)  # read here, not prefetched: a new one may have come
    paths = {version.hash: version.path for version in versions}
    # PROTECT would refuse to delete a parent before its child.
    versions.update(parent=None)
    dataset.delete()
    record("dataset.delete", user=user, obj=dataset, versions=len(paths))

    def remove_unused_rows() -> None:
        """Remove the rows that no version has any more."""
        used = set(Version.objects.filter(hash__in=paths).values_list("hash", flat=True))
        for digest, path in paths.items():
            if digest not in used:
                remove_on_commit(path)

    transaction.on_commit(remove_unused_rows)
