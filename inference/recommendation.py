"""Recommend registered models for a dataset, measured on its rows, and a past run to start a new one from."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from django.core.cache import caches
from django.db.models import Q
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record
from datasets_app.models import Version
from datasets_app.selectors import version_for
from engine.config import RunConfig
from engine.config_sections import DataSection
from engine.data.rows import load_rows
from engine.errors import EngineError
from engine.intervals import wilson_interval
from engine.serve.answers import Answer, LabelsPrediction, Prediction, ScorePrediction
from experiments.models import Measurement, ModelVersion, RegisteredModel
from experiments.registry.labels import folded
from experiments.registry.selectors import fitting
from web.errors import InvalidError, LorasiteError, NotFoundError
from web.sentences import translate

from .selectors import Model
from .services import TEXTS_LIMIT, predict_texts, reads_pairs
from .similar import Start, starting_point

SAMPLE = 200  # rows
MOST_MODELS = 10
SECONDS = 20.0  # for measuring all models together
SEED = 7
MEASURED_TASKS = ("sequence_classification", "multi_label_classification", "regression")


@dataclass(frozen=True, slots=True)
class Sample:
    """Held-out rows. labels: of each row its label, the set of its labels, or its score."""

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Measured:
    """A matching model, and how many rows it got right: of several labels all of them.

    `rows` is 0 if it could not be measured; `reason` explains the result either way. mae: the mean absolute error of a model
    of scores, whose answers are neither right nor wrong; else None.
    """

    version: ModelVersion
    rows: int
    right: int
    seconds: float
    reason: str
    mae: float | None = None

    @property
    def has_share(self) -> bool:
        return bool(self.rows) and self.mae is None

    @property
    def accuracy(self) -> float | None:
        return self.right / self.rows if self.has_share else None

    @property
    def low(self) -> float | None:
        return wilson_interval(self.right, self.rows)[0] if self.has_share else None

    @property
    def high(self) -> float | None:
        return wilson_interval(self.right, self.rows)[1] if self.has_share else None

    @property
    def rank(self) -> tuple[float, float, str]:
        """Return what sorts the best model first; by name where they are equal, so that the order stays the same."""
        return -(self.accuracy or 0.0), inf if self.mae is None else self.mae, str(self.version)


@dataclass(frozen=True, slots=True)
class AnswerCount:
    """What a model got right, or how wrong it was: answered rows, right ones, and the summed absolute error of scores."""

    rows: int
    right: int
    error: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Models ranked by their accuracy, or error, on the sample; `more` is how many others match but were not measured."""

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
    """Measure every model of the data's task type with matching labels on rows that it was not trained on.

    Complete measurements are stored.
    """
    deadline = time.monotonic() + seconds
    models = fitting(user, list(data.labels), data.task_type)
    matching = [
        v for v in versions_to_measure(list(models[:MOST_MODELS])) if reads_pairs(Model.of(v)) == data.has_pairs
    ]
    can_measure = matching and data.task_type in MEASURED_TASKS
    rows = held_out(data, sample) if can_measure else Sample([], None, [])
    measured = [measure(version, data, rows, sample, deadline) for version in matching]
    measured.sort(key=lambda each: each.rank)
    record("model.recommend", user=user, obj=data, models=len(measured), rows=sample)
    more = max(0, models.count() - MOST_MODELS)
    return Recommendation(data, measured, more, starting_point(user, data))


def versions_to_measure(models: list[RegisteredModel]) -> list[ModelVersion]:
    """Return the newest version of each model, and those that an alias names, in the order of the models."""
    places = {model.pk: place for place, model in enumerate(models)}
    names = Q(pk__in=[model.latest_id for model in models]) | Q(aliases__model__in=models)
    versions = ModelVersion.objects.filter(names).select_related("model", "dataset_version__dataset")
    return sorted(versions.prefetch_related("aliases").distinct(), key=lambda version: places[version.model_id])


def held_out(data: Version, most: int) -> Sample:
    """Return a random sample of the rows that a run on these data would not train on.

    These are its test rows, or its evaluation rows if there are none.
    """
    try:
        rows = load_rows(data.path, DataSection().model_copy(update=data.run_columns), SEED, data.task_type)
    except EngineError as error:
        raise InvalidError(translate(error.message), field="dataset") from None
    split = rows.test or rows.eval
    chosen = np.random.default_rng(SEED).permutation(len(split))[:most].tolist()
    return Sample(
        [split.texts[i] for i in chosen],
        split.text_pairs and [split.text_pairs[i] for i in chosen],
        [label_of_row(rows.labels, split.labels[i]) for i in chosen],
    )


def label_of_row(names: list[str], label: Any) -> str | frozenset[str] | float:
    """Return what engine.data.labelled_rows.Split holds of one row as its label, its set of labels, or its score."""
    if isinstance(label, np.ndarray):
        return frozenset(name for name, has_label in zip(names, label.tolist(), strict=True) if has_label)
    return names[label] if names else float(label)


def measure(version: ModelVersion, data: Version, rows: Sample, sample: int, deadline: float) -> Measured:
    """Return the stored measurement of a model, or a new one."""
    if version.task_type not in MEASURED_TASKS:
        return Measured(version, 0, 0, 0.0, _("Models of this task type can't be measured on other data yet."))
    try:
        if version.task_type == "regression":
            return measure_error(version, data, rows, deadline)
        measurement = Measurement.objects.filter(version=version, data_hash=data.hash, asked=sample).first()
        if measurement is None:
            measurement = run_measurement(version, data, rows, sample, deadline)
    except LorasiteError as error:  # a model that cannot be loaded does not spoil the others' ranking
        return Measured(version, 0, 0, 0.0, str(error.message))
    reason = explain_measurement(measurement, data, len(rows))
    return Measured(version, measurement.rows, measurement.right, measurement.seconds, reason)


def measure_error(version: ModelVersion, data: Version, rows: Sample, deadline: float) -> Measured:
    """Return the mean absolute error of a model of scores, cached by process because neither model nor data ever change."""
    cache = caches["memory"]
    key = f"error-{version.key.hex}-{data.hash}-{len(rows)}"
    count: AnswerCount | None = cache.get(key)
    if count is None:
        unseen = unseen_rows(version, rows)
        count = count_answers(version, rows, unseen, deadline)
        if count.rows == len(unseen):
            cache.set(key, count, None)
    if not count.rows:
        return Measured(version, 0, 0, count.seconds, not_measured())
    error = count.error / count.rows
    sentence = _("Off by %(error).3g on average on %(rows)d rows of %(data)s that it was not trained on.")
    reason = sentence % {"error": error, "rows": count.rows, "data": str(data)} + left_out(count.rows, len(rows))
    return Measured(version, count.rows, 0, count.seconds, reason, error)


def run_measurement(version: ModelVersion, data: Version, rows: Sample, sample: int, deadline: float) -> Measurement:
    """Predict the rows until the deadline, and store the result if it covers all of them."""
    unseen = unseen_rows(version, rows)
    count = count_answers(version, rows, unseen, deadline)
    key = {"version": version, "data_hash": data.hash, "asked": sample}
    result = {"rows": count.rows, "right": count.right, "seconds": count.seconds}
    # A partial result is not stored: with more time, the next request measures all rows.
    if count.rows < len(unseen):
        return Measurement(**key, **result)
    return Measurement.objects.get_or_create(**key, defaults=result)[0]


def count_answers(version: ModelVersion, rows: Sample, unseen: list[int], deadline: float) -> AnswerCount:
    """Predict the rows of these indexes until the deadline, and compare the answers with their labels."""
    started = time.monotonic()
    done = 0
    right = 0
    error = 0.0
    for start in range(0, len(unseen), TEXTS_LIMIT):
        if time.monotonic() > deadline:
            break  # the rows are in random order, so those done are a sample too
        chunk = unseen[start : start + TEXTS_LIMIT]
        second_texts = rows.text_pairs and [rows.text_pairs[i] for i in chunk]
        answers = predict_texts(Model.of(version), [rows.texts[i] for i in chunk], second_texts).predictions
        for answer, i in zip(answers, chunk, strict=True):
            if isinstance(answer, ScorePrediction):
                error += abs(answer.score - rows.labels[i])
            else:
                right += is_right(answer, rows.labels[i])
        done += len(chunk)
    return AnswerCount(done, right, error, time.monotonic() - started)


def is_right(answer: Answer, expected: Any) -> bool:
    """Return whether an answer is the label of a row, or all of its labels and no other."""
    # The data may write the same labels in another case, as they may to match at all.
    if isinstance(answer, LabelsPrediction):
        return folded(answer.chosen) == folded(expected)
    return isinstance(answer, Prediction) and folded([answer.labels[answer.label]]) == folded([expected])


def unseen_rows(version: ModelVersion, rows: Sample) -> list[int]:
    """Return the indexes of the rows that the model was not trained on."""
    trained_on = training_texts(version)
    second_texts: Sequence[str | None] = rows.text_pairs or [None] * len(rows)
    return [i for i, texts in enumerate(zip(rows.texts, second_texts, strict=True)) if texts not in trained_on]


def training_texts(version: ModelVersion) -> set[tuple[str, str | None]]:
    """Return the texts, or pairs of texts, that the model was trained on; empty if its data were deleted or can't be read."""
    data = version.dataset_version
    if data is None or not data.path.exists():
        return set()
    try:
        # The run's own seed and settings draw the same split as they did then.
        config = RunConfig.parse(version.config)
        columns = config.data.model_copy(update=data.run_columns)
        train = load_rows(data.path, columns, config.training.seed, config.task).train
    except EngineError:
        return set()
    second_texts: Sequence[str | None] = train.text_pairs or [None] * len(train)
    return set(zip(train.texts, second_texts, strict=True))


def explain_measurement(measurement: Measurement, data: Version, sample: int) -> str:
    """Return the result in words, with the 95 % interval and the number of rows that were left out."""
    if not measurement.rows:
        return not_measured()
    low, high = wilson_interval(measurement.right, measurement.rows)
    sentence = _(
        "Right in %(share).1f%% of %(rows)d rows of %(data)s that it was not trained on; on all such rows "
        "that would be %(low).1f to %(high).1f%%."
    )
    if data.task_type == "multi_label_classification":
        sentence = _(
            "All labels right in %(share).1f%% of %(rows)d rows of %(data)s that it was not trained on; on all such rows "
            "that would be %(low).1f to %(high).1f%%."
        )
    facts = {
        "share": 100 * measurement.accuracy,
        "rows": measurement.rows,
        "data": str(data),
        "low": 100 * low,
        "high": 100 * high,
    }
    return sentence % facts + left_out(measurement.rows, sample)


def not_measured() -> str:
    return _("There was no time left, or no row that it was not trained on.")


def left_out(rows: int, sample: int) -> str:
    """Return the sentence about the rows of the sample that were not measured; empty if all were."""
    if rows == sample:
        return ""
    sentence = _("%(count)d rows of the sample were left out: it was trained on them, or time was short.")
    return " " + sentence % {"count": sample - rows}
