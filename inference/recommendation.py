"""Which registered model suits a dataset best, measured on its rows, and from which past run a new one could start."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record
from datasets_app.models import STORED_COLUMNS, Version
from datasets_app.selectors import version_for
from engine.config import DataSection, RunConfig
from engine.data.rows import Split, load_rows
from engine.errors import EngineError
from experiments.models import Measurement, ModelVersion
from experiments.registry.labels import folded
from experiments.registry.selectors import fitting
from experiments.results import interval
from web.errors import Invalid, LorasiteError, NotFound

from .selectors import Model
from .services import TEXTS_LIMIT, ask
from .similar import Start, starting_point

SAMPLE, MOST, SECONDS = 200, 10, 20.0  # rows; models; for all of them together
SEED = 7


@dataclass(frozen=True, slots=True)
class Measured:
    """A model that fits, and how often it was right. rows is 0 where it could not be measured; `reason` says why either way."""

    version: ModelVersion
    rows: int
    right: int
    seconds: float
    reason: str

    @property
    def accuracy(self) -> float | None:
        return self.right / self.rows if self.rows else None

    @property
    def low(self) -> float | None:
        return interval(self.right, self.rows)[0] if self.rows else None

    @property
    def high(self) -> float | None:
        return interval(self.right, self.rows)[1] if self.rows else None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`models` are ranked by their accuracy on the sample; `more` fit too and were not measured."""

    data: Version
    models: list[Measured]
    more: int
    start: Start | None


def data_for(user: User, reference: str) -> Version:
    """The dataset version that "name" or "name@version" means; NotFound where there is none for this person."""
    try:
        return version_for(user, reference)
    except Invalid as error:
        raise NotFound(error.message, field="dataset") from None


def recommend(*, user: User, data: Version, sample: int = SAMPLE, seconds: float = SECONDS) -> Recommendation:
    """Ask every model whose labels fit about rows that it has not learnt from; what was measured once is kept."""
    until = time.monotonic() + seconds
    found = fitting(user, list(data.labels))
    versions = [model.latest for model in found.select_related("latest__model", "latest__dataset_version")[:MOST]]
    rows = held_out(data, sample) if versions else Split([], np.array([], dtype=np.int64))
    measured = [_measured(version, data, rows, sample, until) for version in versions if version]
    measured.sort(key=lambda each: (-(each.accuracy or 0.0), each.version.model.name))
    record("model.recommend", user=user, obj=data, models=len(measured), rows=sample)
    return Recommendation(data, measured, max(0, found.count() - MOST), starting_point(user, data))


def held_out(data: Version, most: int) -> Split:
    """Some of the rows that a run on this data would not learn from: its test rows, else those held out for evaluation."""
    try:
        rows = load_rows(data.path, DataSection().model_copy(update=STORED_COLUMNS), SEED)
    except EngineError as error:
        raise Invalid(str(error), field="dataset") from None
    split = rows.test or rows.eval
    chosen = np.random.default_rng(SEED).permutation(len(split))[:most]
    names = np.array(rows.labels)[split.labels[chosen]]
    return Split([split.texts[i] for i in chosen], names)


def _measured(version: ModelVersion, data: Version, rows: Split, sample: int, until: float) -> Measured:
    known = Measurement.objects.filter(version=version, data_hash=data.hash, asked=sample).first()
    if known is None:
        try:
            known = _measure(version, data, rows, sample, until)
        except LorasiteError as error:
            return Measured(version, 0, 0, 0.0, str(error.message))
    return Measured(version, known.rows, known.right, known.seconds, _reason(known, data, len(rows)))


def _measure(version: ModelVersion, data: Version, rows: Split, sample: int, until: float) -> Measurement:
    """Stored only where time sufficed for all rows; they are in random order, so fewer of them are a sample too."""
    started, learnt = time.monotonic(), _learnt(version)
    fresh = [i for i, text in enumerate(rows.texts) if text not in learnt]
    right = done = 0
    for start in range(0, len(fresh), TEXTS_LIMIT):
        if time.monotonic() > until:
            break
        chunk = fresh[start : start + TEXTS_LIMIT]
        said = ask(Model.of(version), [rows.texts[i] for i in chunk]).predictions
        right += sum(folded([p.labels[p.label]]) == folded([rows.labels[i]]) for p, i in zip(said, chunk, strict=True))
        done += len(chunk)
    facts = {"rows": done, "right": right, "seconds": time.monotonic() - started}
    key = {"version": version, "data_hash": data.hash, "asked": sample}
    if done < len(fresh):
        return Measurement(**key, **facts)
    return Measurement.objects.get_or_create(**key, defaults=facts)[0]


def _learnt(version: ModelVersion) -> set[str]:
    """The texts that its run has trained on, where the data are still here."""
    data = version.dataset_version
    if data is None or not data.path.exists():
        return set()
    try:
        config = RunConfig.parse(version.config)
        columns = config.data.model_copy(update=STORED_COLUMNS)
        return set(load_rows(data.path, columns, config.training.seed).train.texts)
    except EngineError:
        return set()


def _reason(found: Measurement, data: Version, sample: int) -> str:
    if not found.rows:
        return _("There was no time left, or no row that it has not learnt from.")
    low, high = interval(found.right, found.rows)
    said = _(
        "Right in %(share).1f %% of %(rows)d rows of %(data)s that it has not learnt from; on all such rows "
        "that would be %(low).1f to %(high).1f %%."
    )
    facts: dict[str, Any] = {"share": 100 * found.accuracy, "rows": found.rows, "data": data}
    sentence = said % (facts | {"low": 100 * low, "high": 100 * high})
    if found.rows < sample:
        sentence += " " + _(
            "%(count)d rows of the sample are left out: it has learnt from them, or time was short."
        ) % {"count": sample - found.rows}
    return sentence
