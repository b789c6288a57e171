"""The views of `make serve`: predictions, answers of language models and health, without accounts.

`lorasite/model_server_urls.py` lists their addresses.
"""

from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from web.errors import ConflictError, LorasiteError, NotFoundError

from . import api, openai_api
from .completion_requests import CompletionOptions
from .generation import Pieces, Prompt, open_answer
from .language_models import LanguageModel
from .selectors import Model, Models, all_models, only
from .services import answer_texts, check_texts, load, predictor


class UnavailableError(LorasiteError):
    code = "unavailable"
    status = 503


class AnyTypeJSONParser(JSONParser):
    """Read the body as JSON whatever its Content-Type: `curl -d` alone says that it sends a form."""

    media_type = "*/*"


class Open:
    """Mixed into a view: anybody may ask, without an account."""

    authentication_classes: Any = ()
    permission_classes: Any = ()
    throttle_classes: Any = ()
    parser_classes: Any = (AnyTypeJSONParser,)


class Predict(Open, api.Predict):
    """`POST /predict`: the body and answers of `/api/predict`."""

    def predict(
        self, request: Request, texts: list[str], text_pairs: list[str] | None, model: str | None
    ) -> list[dict[str, Any]]:
        check_texts(texts, text_pairs)
        return answer_texts(served_model(model), texts, text_pairs)

    def find_model(self, request: Request, name: str) -> Model:
        return served_model(name)


class OpenAIView(Open):
    """Mixed into the views of /v1/: every model answers, and nobody is noted."""

    def models(self, request: Request) -> Models:
        return served_models()

    def write(self, request: Request, model: LanguageModel, options: CompletionOptions, prompt: Prompt) -> Pieces:
        return open_answer(model, options, prompt)


class ChatCompletions(OpenAIView, openai_api.ChatCompletions):
    pass


class Completions(OpenAIView, openai_api.Completions):
    pass


class LanguageModels(OpenAIView, openai_api.LanguageModels):
    pass


class LanguageModelDetail(OpenAIView, openai_api.LanguageModelDetail):
    pass


class Health(APIView):
    authentication_classes = ()
    permission_classes = ()

    def get(self, request: Request) -> Response:
        """Return the models that answer and what is in memory; Unavailable if the best model can't be loaded."""
        best = served_model(None)
        try:
            base_model = load(best)
        except ConflictError as error:
            raise UnavailableError(error.message) from None
        names = served_models().names()
        state = {"status": "ok", "model": best.name, "base_model": base_model, "models": names}
        return Response(state | {"in_memory": predictor().state()})


def served_models() -> Models:
    """Return the models of everybody, or the one that `serve --exp` names.

    They are queried for each request, so that a model that was trained or deleted meanwhile counts at once.
    """
    return only(settings.SERVED_MODEL) if settings.SERVED_MODEL else all_models()


def served_model(name: str | None) -> Model:
    """Return the model of this name, or the best one; NotFound lists the others, Unavailable means that there is none."""
    models = served_models()
    if not name:
        best = models.best()
        if best is None:
            raise UnavailableError(_("There is no trained model yet. Train one first."))
        return best
    try:
        return models.named(name)
    except NotFoundError:
        listed = ", ".join(models.names()) or "–"
        message = _("There is no model %(name)s here. Available models: %(models)s.")
        raise NotFoundError(message % {"name": name, "models": listed}, field="model") from None
