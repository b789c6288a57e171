"""Trained models over HTTP, without accounts: POST /predict, GET /health and /healthz, and GET /metrics where allowed.

A WSGI application of its own, so that it starts without the site's sessions, pages and middleware.
"""

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from django.db import close_old_connections
from django.utils.translation import gettext as _

from web.errors import ConflictError, InvalidError, LorasiteError, NotFoundError, RequestTooLargeError

from . import metrics
from .selectors import Model, Models
from .services import answer_texts, check_texts, load, predictor

BODY_LIMIT = 2**20  # bytes
METHODS = {"/predict": "POST", "/health": "GET", "/healthz": "GET"}


class MethodNotAllowed(LorasiteError):
    code = "method_not_allowed"
    status = 405


class Unavailable(LorasiteError):
    code = "unavailable"
    status = 503


class Server:
    """Answer requests with `models`. They are queried for each request, so a newly trained or deleted model counts."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status = HTTPStatus.OK
        headers = [("Content-Type", "application/json")]
        try:
            if environ["PATH_INFO"] == "/metrics":
                return metrics.serve(environ, start_response)
            body = self.respond(environ)
        except LorasiteError as error:
            status = HTTPStatus(error.status)
            headers = [("Content-Type", "application/problem+json")]
            if "allow" in error.facts:
                headers.append(("Allow", str(error.facts["allow"])))
            if "retry_after" in error.facts:
                headers.append(("Retry-After", str(error.facts["retry_after"])))
            body = problem(error)
        finally:
            # Django closes them only at the end of its own requests.
            close_old_connections()
        content = json.dumps(body, ensure_ascii=False).encode()
        headers.append(("Content-Length", str(len(content))))
        start_response(f"{status.value} {status.phrase}", headers)
        return [content]

    def respond(self, environ: WSGIEnvironment) -> Any:
        """Return the JSON body for a request's path and method."""
        path = environ["PATH_INFO"].rstrip("/")
        if path not in METHODS:
            raise NotFoundError(_("This server has only POST /predict and GET /health."))
        method = METHODS[path]
        if environ["REQUEST_METHOD"] != method:
            message = _("Use %(method)s for %(path)s.") % {"method": method, "path": path}
            raise MethodNotAllowed(message, allow=method)
        if path == "/healthz":
            return {"status": "ok"}  # the process is alive, with or without a model
        if path == "/health":
            return self.health()
        return self.predict(read_json(environ))

    def health(self) -> dict[str, Any]:
        """Return the models that answer and what is in memory; Unavailable if the best model can't be loaded."""
        best = self.choose_model(None)
        try:
            base_model = load(best)
        except ConflictError as error:
            raise Unavailable(error.message) from None
        return {
            "status": "ok",
            "model": best.name,
            "base_model": base_model,
            "models": self.models.names(),
            "in_memory": predictor().state(),
        }

    def predict(self, body: Any) -> Any:
        """Return the answer to `text`, or the list of answers to `texts`."""
        if not isinstance(body, dict) or ("text" in body) == ("texts" in body):
            raise InvalidError(_("Give either text or texts."), field="text")
        texts = body["texts"] if "texts" in body else [body["text"]]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InvalidError(_("A text is a string; texts is a list of strings."), field="text")
        check_texts(texts)
        answers = answer_texts(self.choose_model(body.get("model")), texts)
        return answers if "texts" in body else answers[0]

    def choose_model(self, name: Any) -> Model:
        """Return the model of this name, or the best one if no name is given."""
        # JSON may hold anything here: what is no string names no model, and is answered by 404.
        if name in (None, ""):
            best = self.models.best()
            if best is None:
                raise Unavailable(_("There is no trained model yet. Train one first."))
            return best
        try:
            return self.models.named(str(name))
        except NotFoundError:
            listed = ", ".join(self.models.names()) or "–"
            message = _("There is no model %(name)s here. Available models: %(models)s.")
            raise NotFoundError(message % {"name": name, "models": listed}, field="model") from None


def read_json(environ: WSGIEnvironment) -> Any:
    """Return the parsed body; raise RequestTooLargeError or InvalidError if it can't be read."""
    # The web server sets "refused" where it has not read a body that was too large.
    if environ.get("webserver.refused") or int(environ.get("CONTENT_LENGTH") or 0) > BODY_LIMIT:
        raise RequestTooLargeError(_("The request is larger than %(limit)d bytes.") % {"limit": BODY_LIMIT})
    try:
        return json.loads(environ["wsgi.input"].read(BODY_LIMIT))
    except (ValueError, RecursionError):
        raise InvalidError(_("The body is not JSON.")) from None


def problem(error: LorasiteError) -> dict[str, Any]:
    """Return the error as problem+json (RFC 9457), in the shape of the API's errors."""
    title = str(error.message)
    problems = [{**entry, "message": str(entry["message"])} for entry in error.problems]
    return {
        **error.facts,
        "type": f"about:blank#{error.code}",
        "title": title,
        "status": error.status,
        "code": error.code,
        "detail": " ".join(entry["message"] for entry in problems) or title,
        "errors": problems,
    }
