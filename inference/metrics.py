"""What predictions cost, as Prometheus counts it: in the process that answers, be it the web server or `serve`."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter, Histogram, disable_created_metrics, make_wsgi_app

from web.access import may_read_metrics
from web.errors import LorasiteError, NotAllowed

disable_created_metrics()  # a second series for each counter, which nobody asks
PREDICTIONS = Counter("lorasite_predictions", "Texts that were asked about, by what became of them.", ["outcome"])
SECONDS = Histogram(
    "lorasite_prediction_seconds",
    "From a request's texts to its answers, loading the model included.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, float("inf")),
)
PREDICTIONS.labels("ok")

exposition = make_wsgi_app()


@contextmanager
def measured(texts: int) -> Iterator[None]:
    """Count the texts of one request by its outcome: ok, or the code of what was raised."""
    outcome, started = "ok", time.perf_counter()
    try:
        yield
    except Exception as error:
        outcome = error.code if isinstance(error, LorasiteError) else "error"
        raise
    finally:
        PREDICTIONS.labels(outcome).inc(texts)
        SECONDS.observe(time.perf_counter() - started)


def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """This process's metrics, for whom may_read_metrics lets; NotAllowed for anybody else."""
    if not may_read_metrics(environ):
        raise NotAllowed
    return exposition(environ, start_response)
