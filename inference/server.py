"""Trained models over HTTP, without accounts: POST /predict, GET /health, and GET /metrics for whom the rule book lets.

A WSGI application of its own.
"""

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from django.db import close_old_connections
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from accounts.errors import Conflict, Invalid, LorasiteError, NotFound
from experiments.models import Experiment

from . import metrics
from .services import answers, check_texts, load

BODY_LIMIT = 2**20  # bytes
ROUTES = {"/predict": "POST", "/health": "GET", "/healthz": "GET"}


class MethodNotAllowed(LorasiteError):
    code, status = "method_not_allowed", 405


class TooLarge(LorasiteError):
    code, status = "too_large", 413


class Unavailable(LorasiteError):
    code, status = "unavailable", 503


class Server:
    """Serves `models`, the best first; they are read anew for each request, so what was trained or deleted since counts."""

    def __init__(self, models: QuerySet[Experiment]) -> None:
        self.models = models

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers: list[tuple[str, str]] = []
        try:
            if environ["PATH_INFO"] == "/metrics":
                return metrics.serve(environ, start_response)
            status, kind, body = HTTPStatus.OK, "application/json", self._answer(environ)
        except LorasiteError as error:
            status, kind, body = HTTPStatus(error.status), "application/problem+json", problem(error)
            headers = [("Allow", error.facts["allow"])] if "allow" in error.facts else []
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
        """Which models answer; Unavailable while the best one does not."""
        best = self._choose(None)
        try:
            base_model = load(best.final_model, best.name).base_model
        except Conflict as error:
            raise Unavailable(error.message) from None
        return {"status": "ok", "model": best.name, "base_model": base_model, "models": self._names()}

    def predict(self, asked: Any) -> Any:
        """The answer to `text`, or the answers to `texts`."""
        if not isinstance(asked, dict) or ("text" in asked) == ("texts" in asked):
            raise Invalid(_("Give either text or texts."), field="text")
        texts = asked["texts"] if "texts" in asked else [asked["text"]]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Invalid(_("A text is a string; texts is a list of strings."), field="text")
        check_texts(texts)
        chosen = self._choose(asked.get("model"))
        found = answers(chosen.final_model, chosen.name, texts)
        return found if "texts" in asked else found[0]

    def _choose(self, name: Any) -> Experiment:
        named = name not in (None, "")
        found = (self.models.filter(name=str(name)) if named else self.models).first()
        if found is None and named:
            message = _("There is no model {name} here, but: {models}.")
            raise NotFound(message.format(name=name, models=", ".join(self._names()) or "–"), field="model")
        if found is None:
            raise Unavailable(_("There is no trained model yet. Train one first."))
        return found

    def _names(self) -> list[str]:
        return sorted(self.models.values_list("name", flat=True))


def _body(environ: dict[str, Any]) -> Any:
    content = environ["wsgi.input"].read(BODY_LIMIT + 1)
    if len(content) > BODY_LIMIT:
        raise TooLarge(_("The request is larger than {limit} bytes.").format(limit=BODY_LIMIT))
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Invalid(_("The body is not JSON.")) from None


def problem(error: LorasiteError) -> dict[str, Any]:
    """RFC 9457, in the words of the API."""
    problems = [{**found, "message": str(found["message"])} for found in error.problems]
    title = str(error.message)
    known = {"type": f"about:blank#{error.code}", "title": title, "status": error.status, "code": error.code}
    return {**error.facts, **known, "detail": " ".join(p["message"] for p in problems) or title, "errors": problems}
