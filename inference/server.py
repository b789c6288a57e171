"""Trained models over HTTP, without accounts: POST /predict, GET /health, and GET /metrics for whom the rule book lets.

A WSGI application of its own.
"""

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from django.db import close_old_connections
from django.utils.translation import gettext as _

from web.errors import Conflict, Invalid, LorasiteError, NotFound

from . import metrics
from .selectors import Model, Models
from .services import answers, check_texts, load, predictor

BODY_LIMIT = 2**20  # bytes
HEADERS = {"Allow": "allow", "Retry-After": "retry_after"}
ROUTES = {"/predict": "POST", "/health": "GET", "/healthz": "GET"}


class MethodNotAllowed(LorasiteError):
    code, status = "method_not_allowed", 405


class TooLarge(LorasiteError):
    code, status = "too_large", 413


class Unavailable(LorasiteError):
    code, status = "unavailable", 503


class Server:
    """Serves `models`; they are read anew for each request, so what was trained, registered or deleted since counts."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers: list[tuple[str, str]] = []
        try:
            if environ["PATH_INFO"] == "/metrics":
                return metrics.serve(environ, start_response)
            status, kind, body = HTTPStatus.OK, "application/json", self._answer(environ)
        except LorasiteError as error:
            status, kind, body = HTTPStatus(error.status), "application/problem+json", problem(error)
            headers = [(name, str(error.facts[fact])) for name, fact in HEADERS.items() if fact in error.facts]
        finally:
            close_old_connections()
        content = json.dumps(body, ensure_ascii=False).encode()
        headers += [("Content-Type", kind), ("Content-Length", str(len(content)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [content]

    def _answer(self, environ: dict[str, Any]) -> Any:
        path, method = environ["PATH_INFO"].rstrip("/"), environ["REQUEST_METHOD"]
        if path not in ROUTES:
            raise NotFound(_("There is POST /predict and GET /health here, and nothing else."))
        if method != ROUTES[path]:
            message = _("Use {method} for {path}.").format(method=ROUTES[path], path=path)
            raise MethodNotAllowed(message, allow=ROUTES[path])
        if path == "/healthz":
            return {"status": "ok"}  # the process lives, with or without a model
        return self.health() if path == "/health" else self.predict(_body(environ))

    def health(self) -> dict[str, Any]:
        """Which models answer, and what is in memory; Unavailable while the best one does not."""
        best = self._choose(None)
        try:
            base_model = load(best)
        except Conflict as error:
            raise Unavailable(error.message) from None
        names, state = self.models.names(), predictor().state()
        return {"status": "ok", "model": best.name, "base_model": base_model, "models": names, "in_memory": state}

    def predict(self, asked: Any) -> Any:
        """The answer to `text`, or the answers to `texts`."""
        if not isinstance(asked, dict) or ("text" in asked) == ("texts" in asked):
            raise Invalid(_("Give either text or texts."), field="text")
        texts = asked["texts"] if "texts" in asked else [asked["text"]]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Invalid(_("A text is a string; texts is a list of strings."), field="text")
        check_texts(texts)
        found = answers(self._choose(asked.get("model")), texts)
        return found if "texts" in asked else found[0]

    def _choose(self, name: Any) -> Model:
        if name in (None, ""):
            best = self.models.best()
            if best is None:
                raise Unavailable(_("There is no trained model yet. Train one first."))
            return best
        try:
            return self.models.named(str(name))
        except NotFound:
            message = _("There is no model {name} here, but: {models}.")
            listed = ", ".join(self.models.names()) or "–"
            raise NotFound(message.format(name=name, models=listed), field="model") from None


def _body(environ: dict[str, Any]) -> Any:
    if environ.get("webserver.refused") or int(environ.get("CONTENT_LENGTH") or 0) > BODY_LIMIT:
        raise TooLarge(_("The request is larger than {limit} bytes.").format(limit=BODY_LIMIT))
    try:
        return json.loads(environ["wsgi.input"].read(BODY_LIMIT))
    except (ValueError, RecursionError):
        raise Invalid(_("The body is not JSON.")) from None


def problem(error: LorasiteError) -> dict[str, Any]:
    """RFC 9457, in the words of the API."""
    problems = [{**found, "message": str(found["message"])} for found in error.problems]
    title = str(error.message)
    known = {"type": f"about:blank#{error.code}", "title": title, "status": error.status, "code": error.code}
    return {**error.facts, **known, "detail": " ".join(p["message"] for p in problems) or title, "errors": problems}
