"""How similar two datasets are, and the best past run on the most similar data.

similarity = 0.40 labels + 0.25 language + 0.20 size + 0.15 length, each from 0 to 1:
labels    half the share of labels in common (Jaccard), half the closeness of their numbers (0 from a factor of four)
language  1 if most rows are in the same language
size      closeness of the numbers of rows (0 from a factor of a hundred)
length    closeness of the median lengths of the texts (0 from a factor of eight)
"""

from dataclasses import dataclass
from math import log
from typing import Any

from django.core.cache import caches
from django.utils.translation import gettext as _

from accounts.models import User
from datasets_app.models import Version
from engine.config import RunConfig
from engine.errors import ConfigError
from experiments.models import Experiment
from experiments.registry.labels import folded
from experiments.registry.services import language_of
from experiments.selectors import experiments_for

WEIGHTS = {"labels": 0.40, "language": 0.25, "size": 0.20, "length": 0.15}
ENOUGH = 0.5
# Detecting the language reads rows, so only the versions that are nearest by what the database holds are compared by it.
MOST_VERSIONS = 200
MOST_READ = 10


@dataclass(frozen=True, slots=True)
class Start:
    """A configuration to start from. `config` holds what differs from the defaults, for the new data."""

    experiment: Experiment
    similarity: float
    config: dict[str, Any]
    reason: str


def starting_point(user: User, data: Version) -> Start | None:
    """Return the best run of the same task type on the most similar data; None if no data are similar enough."""
    runs = experiments_for(user).filter(score__isnull=False, version__isnull=False, task_type=data.task_type)
    # Many runs may share a version, so more of them are read than versions are compared.
    recent = runs.order_by("-created_at").values_list("version_id", flat=True)[: 10 * MOST_VERSIONS]
    keys = list(dict.fromkeys(recent))[:MOST_VERSIONS]
    versions = Version.objects.filter(pk__in=keys).select_related("dataset")
    alike = [version for version in versions if version.has_pairs == data.has_pairs]
    nearest = sorted(alike, key=lambda other: -similarity(data, other, languages=False))[:MOST_READ]
    if not nearest:
        return None
    scores = {other: similarity(data, other) for other in nearest}
    best_match = max(nearest, key=lambda other: scores[other])
    if scores[best_match] < ENOUGH:
        return None
    run = runs.filter(version=best_match).order_by("-score").first()
    if run is None:
        return None
    try:
        config = RunConfig.parse(run.config).concise()
    except ConfigError:  # written by a release that had other settings
        return None
    config.pop("experiment_name")
    config["data"] = config["data"] | {"dataset_name": str(data)}
    return Start(run, scores[best_match], config, explain_start(run, scores[best_match], data, best_match))


def similarity(a: Version, b: Version, *, languages: bool = True) -> float:
    """Return how similar two datasets are, from 0 to 1; without `languages`, theirs count as different."""
    labels_a = folded(a.labels)
    labels_b = folded(b.labels)
    all_labels = labels_a | labels_b
    jaccard = len(labels_a & labels_b) / len(all_labels) if all_labels else 1.0  # scores have no labels
    parts = {
        "labels": 0.5 * jaccard + 0.5 * closeness(len(labels_a), len(labels_b), 4),
        "language": float(languages and language(a) == language(b)),
        "size": closeness(a.rows, b.rows, 100),
        "length": closeness(median_length(a), median_length(b), 8),
    }
    return sum(WEIGHTS[name] * value for name, value in parts.items())


def closeness(a: float, b: float, farthest: float) -> float:
    """Return 1 for equal numbers, 0 if one is `farthest` times the other or more; logarithmic in between."""
    return max(0.0, 1 - abs(log(max(a, 1) / max(b, 1))) / log(farthest))


def median_length(version: Version) -> int:
    """Return the median length of the texts in characters, estimated from the histogram."""
    half = sum(bar["rows"] for bar in version.lengths) / 2
    passed = 0
    for bar in version.lengths:
        passed += bar["rows"]
        if passed >= half:
            return int((bar["from"] + bar["to"]) / 2)
    return 1


def language(version: Version) -> str:
    """Return the language of most rows; cached by process, because the rows of a version never change."""
    cache = caches["memory"]
    key = f"language-{version.hash}"
    name = cache.get(key)
    if name is None:
        name = language_of(version) if version.path.exists() else ""
        cache.set(key, name, None)
    return str(name)


def explain_start(run: Experiment, score: float, data: Version, other: Version) -> str:
    sentence = _(
        "It reached an accuracy of %(accuracy).3f on %(other)s, whose data are %(score).0f%% similar to these: "
        "%(labels)d against %(own)d labels, %(rows)d against %(own_rows)d rows, %(length)d against %(own_length)d "
        "characters in a typical text, %(language)s."
    )
    if run.accuracy is None:
        sentence = _(
            "It reached %(metric)s %(value).3f on %(other)s, whose data are %(score).0f%% similar to these: "
            "%(labels)d against %(own)d labels, %(rows)d against %(own_rows)d rows, %(length)d against %(own_length)d "
            "characters in a typical text, %(language)s."
        )
    return sentence % {
        "accuracy": run.accuracy,
        "metric": run.score_title,
        "value": run.score,
        "other": other,
        "score": 100 * score,
        "labels": len(other.labels),
        "own": len(data.labels),
        "rows": other.rows,
        "own_rows": data.rows,
        "length": median_length(other),
        "own_length": median_length(data),
        "language": language(other) or _("language unknown"),
    }
