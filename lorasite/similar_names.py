"""Objects whose names resemble one that does not exist, for its error page."""

from collections.abc import Mapping
from difflib import get_close_matches

from django.db.models import Model
from django.http import HttpRequest

from accounts.models import User
from accounts.permissions import visible
from datasets_app.models import Dataset
from engine.names import normalise_name
from experiments.models import Experiment, RegisteredModel
from lorasite.navigation import DATASETS, MODELS, RUNS, current_entry

MODELS_OF_LISTS: Mapping[str, type[Model]] = {
    DATASETS.address: Dataset,
    RUNS.address: Experiment,
    MODELS.address: RegisteredModel,
}
MOST = 5
MOST_COMPARED = 2000  # the newest; comparing more would be felt
LONGEST = 100  # characters of a name that are compared


def similar(request: HttpRequest, user: User) -> list[Model]:
    """Return objects that the person may see, whose names resemble the one in the address; the nearest first."""
    name = request.resolver_match.kwargs.get("name", "") if request.resolver_match else ""
    entry = current_entry(request)
    if not name or not entry or entry.address not in MODELS_OF_LISTS:
        return []
    objects = visible(user, MODELS_OF_LISTS[entry.address]._default_manager.order_by("-pk"))
    keys = {pk: other.casefold() for pk, other in objects.values_list("pk", "name")[:MOST_COMPARED]}
    wanted = normalise_name(name)[:LONGEST].casefold()
    nearest = get_close_matches(wanted, dict.fromkeys(keys.values()), n=MOST)
    found = objects.filter(pk__in=[pk for pk, key in keys.items() if key in nearest])
    return sorted(found, key=lambda obj: nearest.index(keys[obj.pk]))[:MOST]
