"""How alike two datasets are, and the best past run on the data most like some other.

similarity = 0.40 labels + 0.25 language + 0.20 size + 0.15 length, each from 0 to 1:
labels    half the share of labels in common (Jaccard), half how near their numbers are (0 from four times as many on)
language  1 where most rows are in the same one
size      how near the numbers of rows are: 0 from a hundred times as many on
length    how near the median lengths of the texts are: 0 from eight times as long on
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
VERSIONS, CLOSELY = 200, 10  # looked at by what the database knows; those of them whose rows are read


@dataclass(frozen=True, slots=True)
class Start:
    """A configuration to start from. config: what differs from the defaults, for the new data."""

    experiment: Experiment
    similarity: float
    config: dict[str, Any]
    reason: str


def starting_point(user: User, data: Version) -> Start | None:
    """The most accurate run on the data most like these; None where nothing is like them."""
    runs = experiments_for(user).filter(accuracy__isnull=False, version__isnull=False)
    recent = list(runs.order_by("-created_at").values_list("version_id", flat=True)[: 10 * VERSIONS])
    versions = Version.objects.filter(pk__in=list(dict.fromkeys(recent))[:VERSIONS]).select_related("dataset")
    nearest = sorted(versions, key=lambda other: -similarity(data, other, languages=False))[:CLOSELY]
    scored = sorted(((similarity(data, other), other) for other in nearest), key=lambda pair: -pair[0])
    if not scored or scored[0][0] < ENOUGH:
        return None
    score, other = scored[0]
    best = runs.filter(version=other).order_by("-accuracy").first()
    return _start(best, score, data, other) if best else None


def _start(run: Experiment, score: float, data: Version, other: Version) -> Start | None:
    try:
        config = RunConfig.parse(run.config).concise()
    except ConfigError:  # of a release that knew other settings
        return None
    config.pop("experiment_name")
    config["data"] = config["data"] | {"dataset_name": str(data)}
    return Start(run, score, config, _reason(run, score, data, other))


def similarity(a: Version, b: Version, *, languages: bool = True) -> float:
    found = {
        "labels": _labels(set(folded(a.labels)), set(folded(b.labels))),
        "language": float(languages and language(a) == language(b)),
        "size": _near(a.rows, b.rows, 100),
        "length": _near(median_length(a), median_length(b), 8),
    }
    return sum(WEIGHTS[name] * value for name, value in found.items())


def _labels(a: set[str], b: set[str]) -> float:
    return 0.5 * len(a & b) / len(a | b) + 0.5 * _near(len(a), len(b), 4)


def _near(a: float, b: float, farthest: float) -> float:
    """1 for equal numbers, 0 where one is `farthest` times the other, evenly in between."""
    return max(0.0, 1 - abs(log(max(a, 1) / max(b, 1))) / log(farthest))


def median_length(version: Version) -> int:
    """In characters, from the histogram."""
    half, passed = sum(bar["rows"] for bar in version.lengths) / 2, 0
    for bar in version.lengths:
        passed += bar["rows"]
        if passed >= half:
            return int((bar["from"] + bar["to"]) / 2)
    return 1


def language(version: Version) -> str:
    """Rows never change, so it is found once per process."""
    key, cache = f"language-{version.hash}", caches["memory"]
    known = cache.get(key)
    if known is None:
        known = language_of(version) if version.path.exists() else ""
        cache.set(key, known, None)
    return str(known)


def _reason(run: Experiment, score: float, data: Version, other: Version) -> str:
    said = _(
        "It reached an accuracy of %(accuracy).3f on %(other)s, whose data are like these to %(score).0f %%: "
        "%(labels)d against %(own)d labels, %(rows)d against %(own_rows)d rows, %(length)d against %(own_length)d "
        "characters in a usual text, %(language)s."
    )
    return said % {
        "accuracy": run.accuracy, "other": other, "score": 100 * score, "labels": len(other.labels), "own": len(data.labels),
        "rows": other.rows, "own_rows": data.rows, "length": median_length(other), "own_length": median_length(data),
        "language": language(other) or _("language unknown"),
    }  # fmt: skip
