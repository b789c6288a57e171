"""What the correction of a version brought: the run before beside the run after, with the same configuration."""

from typing import Any

from accounts.models import User
from accounts.permissions import visible
from datasets_app.models import Version


def of(user: User, version: Version) -> dict[str, Any] | None:
    """The corrected version, the best run on the version before, and the newest run on the corrected one, where there are any.

    Runs are reached through the versions that they name, so that this app knows nothing of who trains.
    """
    corrected = version.children.filter(change__did="relabel").order_by("-number").first()
    if corrected is None:
        return None
    before = visible(user, version.experiments.filter(accuracy__isnull=False)).order_by("-accuracy").first()
    after = visible(user, corrected.experiments.all()).order_by("-created_at").first()
    found: dict[str, Any] = {"corrected": corrected, "before": before, "after": after}
    if before and after and before.accuracy is not None and after.accuracy is not None:
        found["points"] = 100 * (after.accuracy - before.accuracy)
    return found
