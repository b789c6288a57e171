"""Trained models over HTTP, without accounts: POST /predict and GET /health. A WSGI application of its own."""

import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from accounts.errors import Invalid, LorasiteError, NotFound

from .services import answers, check_texts, load

BODY_LIMIT = 2**20  # bytes
ROUTES = {"/predict": "POST", "/health": "GET"}


class MethodNotAllowed(LorasiteError):
    code, status = "method_not_allowed", 405


class TooLarge(LorasiteError):
    code, status = "too_large", 413


class Server:
    """Serves `models`, name → final_model folder; `default` answers where a request names none."""

    def __init__(self, models: Mapping[str, Path], default: str) -> None:
        self.models, self.default = models, default
        self.base_model = load(models[default], default).base_model  # before the first request, so that none waits

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            status, kind, body = HTTPStatus.OK, "application/json", self._answer(environ)
        except LorasiteError as error:
            status, kind, body = HTTPStatus(error.status), "application/problem+json", _problem(error)
        content = json.dumps(body, ensure_ascii=False).encode()
        headers = [("Content-Type", kind), ("Content-Length", str(len(content)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [content]

    def _answer(self, environ: dict[str, Any]) -> Any:
        path, method = environ["PATH_INFO"].rstrip("/"), environ["REQUEST_METHOD"]
        if path not in ROUTES:
            raise NotFound(_("There is POST /predict and GET /health here, and nothing else."))
        if method != ROUTES[path]:
            raise MethodNotAllowed(_("Use {method} for {path}.").format(method=ROUTES[path], path=path))
        return self.health() if path == "/health" else self.predict(_body(environ))

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "model": self.default, "base_model": self.base_model, "models": sorted(self.models)}

    def predict(self, asked: Any) -> Any:
        """The answer to `text`, or the answers to `texts`."""
        if not isinstance(asked, dict) or ("text" in asked) == ("texts" in asked):
            raise Invalid(_("Give either text or texts."), field="text")
        name = self.default if asked.get("model") in (None, "") else asked["model"]
        if not isinstance(name, str) or name not in self.models:
            raise NotFound(_("No such model is served here: {models}.").format(models=", ".join(sorted(self.models))))
        texts = asked["texts"] if "texts" in asked else [asked["text"]]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Invalid(_("A text is a string; texts is a list of strings."), field="text")
        check_texts(texts)
        found = answers(self.models[name], name, texts)
        return found if "texts" in asked else found[0]


def _body(environ: dict[str, Any]) -> Any:
    content = environ["wsgi.input"].read(BODY_LIMIT + 1)
    if len(content) > BODY_LIMIT:
        raise TooLarge(_("The request is larger than {limit} bytes.").format(limit=BODY_LIMIT))
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Invalid(_("The body is not JSON.")) from None


def _problem(error: LorasiteError) -> dict[str, Any]:
    """RFC 9457, in the words of the API."""
    problems = [{**problem, "message": str(problem["message"])} for problem in error.problems]
    return {
        "type": f"about:blank#{error.code}",
        "title": str(error.message),
        "status": error.status,
        "code": error.code,
        "errors": problems,
    }
