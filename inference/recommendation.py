"""Recommend registered models for a dataset, measured on its rows, and a past run to start a new one from."""

import time
from dataclasses import dataclass

import numpy as np
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record
from datasets_app.models import STORED_COLUMNS, Version
from datasets_app.selectors import version_for
from engine.config import DataSection, RunConfig
from engine.data.labelled_rows import Split
from engine.data.rows import load_rows
from engine.errors import EngineError
from engine.intervals import wilson_interval
from experiments.models import Measurement, ModelVersion
from experiments.registry.labels import folded
from experiments.registry.selectors import fitting
from web.errors import InvalidError, LorasiteError, NotFoundError

from .selectors import Model
from .services import TEXTS_LIMIT, predict_labels
from .similar import Start, starting_point

SAMPLE = 200  # rows
MOST_MODELS = 10
SECONDS = 20.0  # for measuring all models together
SEED = 7


@dataclass(frozen=True, slots=True)
class Measured:
    """A model with matching labels, and how many rows it got right.

    `rows` is 0 if it could not be measured; `reason` explains the result either way.
    """

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
        return wilson_interval(self.right, self.rows)[0] if self.rows else None

    @property
    def high(self) -> float | None:
        return wilson_interval(self.right, self.rows)[1] if self.rows else None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Models ranked by their accuracy on the sample; `more` is how many others match but were not measured."""

    data: Version
    models: list[Measured]
    more: int
    start: Start | None


def data_for(user: User, reference: str) -> Version:
    """Return the dataset version that "name" or "name@version" means; NotFound if there is none for this person."""
    try:
        return version_for(user, reference)
    except InvalidError as error:
        raise NotFoundError(error.message, field="dataset") from None


def recommend(*, user: User, data: Version, sample: int = SAMPLE, seconds: float = SECONDS) -> Recommendation:
    """Measure every model with matching labels on rows that it was not trained on; complete measurements are stored."""
    deadline = time.monotonic() + seconds
    models = fitting(user, list(data.labels))
    newest = [model.latest for model in models.select_related("latest__model", "latest__dataset_version")[:MOST_MODELS]]
    rows = held_out(data, sample) if newest else Split([], np.array([], dtype=np.int64))
    measured = [measure(version, data, rows, sample, deadline) for version in newest if version]
    # By name where accuracies are equal, so that the order stays the same from one request to the next.
    measured.sort(key=lambda each: (-(each.accuracy or 0.0), each.version.model.name))
    record("model.recommend", user=user, obj=data, models=len(measured), rows=sample)
    more = max(0, models.count() - MOST_MODELS)
    return Recommendation(data, measured, more, starting_point(user, data))


def held_out(data: Version, most: int) -> Split:
    """Return a random sample of the rows that a run on these data would not train on.

    These are its test rows, or its evaluation rows if there are none. `labels` of the result are names, not indices.
    """
    try:
        rows = load_rows(data.path, DataSection().model_copy(update=STORED_COLUMNS), SEED)
    except EngineError as error:
        raise InvalidError(str(error), field="dataset") from None
    split = rows.test or rows.eval
    chosen = np.random.default_rng(SEED).permutation(len(split))[:most]
    names = np.array(rows.labels)[split.labels[chosen]]
    return Split([split.texts[i] for i in chosen], names)


def measure(version: ModelVersion, data: Version, rows: Split, sample: int, deadline: float) -> Measured:
    """Return the stored measurement of a model, or a new one."""
    measurement = Measurement.objects.filter(version=version, data_hash=data.hash, asked=sample).first()
    if measurement is None:
        try:
            measurement = run_measurement(version, data, rows, sample, deadline)
        except LorasiteError as error:  # a model that cannot be loaded does not spoil the others' ranking
            return Measured(version, 0, 0, 0.0, str(error.message))
    reason = explain_measurement(measurement, data, len(rows))
    return Measured(version, measurement.rows, measurement.right, measurement.seconds, reason)


def run_measurement(version: ModelVersion, data: Version, rows: Split, sample: int, deadline: float) -> Measurement:
    """Predict the rows until the deadline, and store the result if it covers all of them."""
    started = time.monotonic()
    trained_on = training_texts(version)
    unseen = [i for i, text in enumerate(rows.texts) if text not in trained_on]
    right = 0
    done = 0
    for start in range(0, len(unseen), TEXTS_LIMIT):
        if time.monotonic() > deadline:
            break  # the rows are in random order, so those done are a sample too
        chunk = unseen[start : start + TEXTS_LIMIT]
        predictions = predict_labels(Model.of(version), [rows.texts[i] for i in chunk])
        # The data may write the same labels in another case, as they may to match at all.
        for prediction, i in zip(predictions, chunk, strict=True):
            right += folded([prediction.labels[prediction.label]]) == folded([rows.labels[i]])
        done += len(chunk)
    key = {"version": version, "data_hash": data.hash, "asked": sample}
    result = {"rows": done, "right": right, "seconds": time.monotonic() - started}
    # A partial result is not stored: with more time, the next request measures all rows.
    if done < len(unseen):
        return Measurement(**key, **result)
    return Measurement.objects.get_or_create(**key, defaults=result)[0]


def training_texts(version: ModelVersion) -> set[str]:
    """Return the texts that the model was trained on; empty if its data were deleted or can't be read."""
    data = version.dataset_version
    if data is None or not data.path.exists():
        return set()
    try:
        # The run's own seed and settings draw the same split as they did then.
        config = RunConfig.parse(version.config)
        columns = config.data.model_copy(update=STORED_COLUMNS)
        return set(load_rows(data.path, columns, config.training.seed).train.texts)
    except EngineError:
        return set()


def explain_measurement(measurement: Measurement, data: Version, sample: int) -> str:
    """Return the result in words, with the 95 % interval and the number of rows that were left out."""
    if not measurement.rows:
        return _("There was no time left, or no row that it was not trained on.")
    low, high = wilson_interval(measurement.right, measurement.rows)
    sentence = _(
        "Right in %(share).1f %% of %(rows)d rows of %(data)s that it was not trained on; on all such rows "
        "that would be %(low).1f to %(high).1f %%."
    ) % {
        "share": 100 * measurement.accuracy,
        "rows": measurement.rows,
        "data": str(data),
        "low": 100 * low,
        "high": 100 * high,
    }
    if measurement.rows < sample:
        left_out = _("%(count)d rows of the sample were left out: it was trained on them, or time was short.")
        sentence += " " + left_out % {"count": sample - measurement.rows}
    return sentence
