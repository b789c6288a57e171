"""Search the model hub for base models, where it can be reached: with a short timeout, and with cached answers."""

import hashlib
import logging
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any, Literal

from django.core.cache import cache

from accounts.permissions import allowed_base_models
from engine.models.architectures import find_architecture
from engine.models.base_models import can_download
from engine.models.recommended import find_recommended
from engine.models.supported_types import heads_of
from engine.task_types import TaskType

from .base_models import BaseModel, filter_base_models, list_base_models, read_card_facts

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

log = logging.getLogger(__name__)

HubState = Literal["not_asked", "searched", "away"]
TIMEOUT_S = 4.0
MOST_MODELS = 10
SHORTEST_QUERY = 2  # characters
LONGEST_QUERY = 100
CACHE_S = 3600
AWAY_S = 60  # how long a hub that did not answer is not asked again
AWAY_KEY = "hub-search:away"
# Requests that wait for the hub at the same time, in each process: the others must not run out of threads.
SLOTS = BoundedSemaphore(2)


class HubAwayError(Exception):
    """The hub may not be asked, or does not answer."""


def find_base_models(
    query: str, language: str = "", task: TaskType | None = None, *, search: bool
) -> tuple[list[BaseModel], HubState]:
    """Return the base models that match, with what the hub finds if it is to be searched, and whether it was."""
    known = list_base_models()
    models = filter_base_models(known, query, language, task)
    if not search:
        return models, "not_asked"
    try:
        from_hub = search_hub(query)
    except HubAwayError:
        return models, "away"
    names = {model.name for model in known}
    others = [model for model in from_hub if model.name not in names]
    return models + filter_base_models(others, language=language, task=task), "searched"


def search_hub(query: str) -> list[BaseModel]:
    """Return the hub's most downloaded models for a query that runs may use, at most MOST_MODELS.

    Only models with safetensors weights. Raises HubAwayError.
    """
    query = " ".join(query.split())[:LONGEST_QUERY]
    if len(query) < SHORTEST_QUERY:
        return []
    key = f"hub-search:{hashlib.sha256(query.casefold().encode()).hexdigest()}"
    rows = cache.get(key)
    if rows is None:
        rows = ask_hub(query)
        cache.set(key, rows, CACHE_S)
    allowed = allowed_base_models(row["name"] for row in rows)
    return [BaseModel(**row) for row in rows if row["name"] in allowed]


def ask_hub(query: str) -> list[dict[str, Any]]:
    """Return the fields of the models that the hub lists. Raises HubAwayError, also while too many requests wait for it."""
    if cache.get(AWAY_KEY) or not SLOTS.acquire(blocking=False):
        raise HubAwayError
    try:
        if not can_download():
            raise HubAwayError
        return fetch_with_timeout(query)
    except HubAwayError:
        cache.set(AWAY_KEY, True, AWAY_S)
        raise
    finally:
        SLOTS.release()


def fetch_with_timeout(query: str) -> list[dict[str, Any]]:
    """Ask the hub in a thread, because its client has no timeout for a search."""
    answers: list[list[dict[str, Any]]] = []

    def fetch() -> None:
        from huggingface_hub import HfApi, constants  # deferred: most pages need no hub client

        try:
            models = HfApi(endpoint=constants.ENDPOINT).list_models(
                search=query,
                filter="safetensors",
                sort="downloads",
                limit=MOST_MODELS,
                expand=["safetensors", "cardData", "config"],
            )
            answers.append([fields_of(model) for model in models])
        except Exception as error:  # each HTTP library below the hub client has errors of its own
            log.info("The model hub did not answer a search (%s).", type(error).__name__)

    thread = Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    if not answers:
        raise HubAwayError
    return answers[0]


def fields_of(model: "ModelInfo") -> dict[str, Any]:
    """Return the fields of a BaseModel by what the hub lists of a model."""
    card = model.card_data.to_dict() if model.card_data else {}
    languages, language_count, licence = read_card_facts(card)
    architecture = find_architecture(model.config or {})
    recommended = find_recommended(model.id)
    return {
        "name": model.id,
        "place": "hub",
        "recommended": recommended is not None,
        "parameters_m": model.safetensors.total / 1e6 if model.safetensors else None,
        "languages": languages,
        "language_count": language_count,
        "licence": licence,
        "fused_kernels": architecture is not None and architecture.run_head is not None,
        "shared_serving": architecture is not None,
        "heads": heads_of(model.config or {}, is_complete=False),
    }
