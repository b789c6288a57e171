"""How `make serve` is served: the site's own stack with other addresses, and without pages, sessions and accounts."""

import contextlib

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler

from inference.model_server import served_model
from inference.services import load
from lorasite import web_server
from web.errors import LorasiteError
from webserver import Head, Site

SETTINGS = {
    "ROOT_URLCONF": "lorasite.model_server_urls",
    "API_PREFIX": "/",  # every error is problem+json, and no body may be larger than one to the site's API
    "MIDDLEWARE": [
        "monitoring.middleware.ProbeMiddleware",
        "web.middleware.ProxyMiddleware",
        "web.middleware.PrivateMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "audit.middleware.RequestMiddleware",
        "web.middleware.ApiMiddleware",
        "web.middleware.BodyMiddleware",
        "web.error_responses.ErrorMiddleware",
    ],
}
# One thread computes, and requests that wait together fill a batch: so many may wait. /health may load a model.
LANES = {"pages": 1, "predictions": 32, "streams": 32, "probes": 1, "alive": 1}


def lane_of(head: Head) -> str:
    """Return the lane of the site; requests of its other lanes are answered by 404 here, so they share one."""
    lane = web_server.lane_of(head)
    return lane if lane in LANES else "pages"


def application() -> WSGIHandler:
    """Return Django's handler, with the best model loaded.

    Call it in the process that answers, which does nothing else: it changes this process's settings, and torch's threads
    do not survive a fork.
    """
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    with contextlib.suppress(LorasiteError):  # /health reports it
        load(served_model(None))
    return WSGIHandler()


def site(host: str, port: int) -> Site:
    return Site(
        load=application,
        address=web_server.join_address(host, port),
        name="lorasite-serve",
        lanes=LANES,
        lane_of=lane_of,
        body_limit=lambda head: int(settings.API_BODY_LIMIT),
        folder=settings.FILE_UPLOAD_TEMP_DIR,
        log_level="warning",
        stall_seconds=600,  # loading the first model counts
    )
