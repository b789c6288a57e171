"""Prometheus metrics of predictions and answers, counted in the process that computes them: the web server or `serve`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram, disable_created_metrics

from web.errors import LorasiteError

disable_created_metrics()  # they would add a second series to each counter, which no dashboard uses
PREDICTIONS = Counter("lorasite_predictions", "Texts that were sent for prediction, by outcome.", ["outcome"])
SECONDS = Histogram(
    "lorasite_prediction_seconds",
    "Time from a request's texts to its answers, including loading the model.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, float("inf")),
)
ANSWERS = Counter(
    "lorasite_answers",
    "Answers by the task type of the model, and by whether they are confident: yes, no, or unknown.",
    ["task", "confident"],
)
EXPLANATIONS = Counter(
    "lorasite_explanations", "Answers that were explained, by method and outcome.", ["method", "outcome"]
)
EXPLANATION_SECONDS = Histogram(
    "lorasite_explanation_seconds",
    "Time to explain one answer, without the answer itself.",
    ["method"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, float("inf")),
)
GENERATIONS = Counter("lorasite_generations", "Answers of language models, by outcome.", ["outcome"])
GENERATED_TOKENS = Counter("lorasite_generated_tokens", "Tokens that language models wrote.")
FIRST_TOKEN_SECONDS = Histogram(
    "lorasite_first_token_seconds",
    "Time from a request to the first piece of its answer, including loading the model.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, float("inf")),
)
GENERATION_SECONDS = Histogram(
    "lorasite_generation_seconds",
    "Time from a request to the end of its answer.",
    buckets=(0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, float("inf")),
)
PREDICTIONS.labels("ok")  # so that the series exists before the first prediction


@contextmanager
def count_predictions(texts: int) -> Iterator[None]:
    """Count the texts of one request by its outcome, and time it."""
    with measured_outcome(lambda outcome: PREDICTIONS.labels(outcome).inc(texts), SECONDS):
        yield


@contextmanager
def count_explanation(method: str) -> Iterator[None]:
    """Count one explanation by its outcome, and time it."""
    with measured_outcome(
        lambda outcome: EXPLANATIONS.labels(method, outcome).inc(), EXPLANATION_SECONDS.labels(method)
    ):
        yield


@contextmanager
def measured_outcome(count: Callable[[str], None], seconds: Histogram) -> Iterator[None]:
    """Count what happens inside of the block by its outcome, ok or the code of the error that was raised, and time it."""
    outcome = "ok"
    started = time.perf_counter()
    try:
        yield
    except GeneratorExit:
        outcome = "left"
        raise
    except Exception as error:
        outcome = error.code if isinstance(error, LorasiteError) else "error"
        raise
    finally:
        count(outcome)
        seconds.observe(time.perf_counter() - started)


def count_answer(task: str, confident: bool | None) -> None:
    """Count one answer by whether it is confident."""
    ANSWERS.labels(task, {True: "yes", False: "no", None: "unknown"}[confident]).inc()


@contextmanager
def count_generation() -> Iterator[None]:
    """Count one answer of a language model by its outcome, "left" if its reader went away first, and time it."""
    with measured_outcome(lambda outcome: GENERATIONS.labels(outcome).inc(), GENERATION_SECONDS):
        yield
