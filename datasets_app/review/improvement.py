"""What correcting the labels of a version gained: the runs before and after it."""

from typing import Any

from accounts.models import User
from accounts.permissions import visible
from datasets_app.models import Version


def compare_runs(user: User, version: Version) -> dict[str, Any] | None:
    """Return the corrected version, the best run before it, the newest run on it, and the points of accuracy gained.

    None if no corrected version was made. `before` and `after` are None where there is no such run; `points` is missing then.
    Runs are reached through the versions that they name, because this app may not import the app that trains.
    """
    corrected = version.children.filter(change__did="relabel").order_by("-number").first()
    if corrected is None:
        return None
    before = visible(user, version.experiments.filter(accuracy__isnull=False)).order_by("-accuracy").first()
    after = visible(user, corrected.experiments.all()).order_by("-created_at").first()
    comparison: dict[str, Any] = {"corrected": corrected, "before": before, "after": after}
    if before and after and before.accuracy is not None and after.accuracy is not None:
        comparison["points"] = 100 * (after.accuracy - before.accuracy)
    return comparison
