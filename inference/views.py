"""Pages: predict a text with one or two models, chat with language models, and find models for a dataset."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from accounts.http import SignedInRequest
from accounts.models import User
from engine.serve.word_importance import Method
from training.presets import sample_runs
from web.errors import LorasiteError
from web.throttles import throttle_posts

from . import recommendation, services
from .chat import Chat
from .completion_requests import MOST_TOKENS, USUAL_TOKENS
from .copy_as import chat_copies, copies
from .explanations import answer_with_explanations
from .language_models import base_model_names
from .openai_api import Writer, event_stream
from .openai_shapes import CHAT
from .selectors import Models, models_for, preferred_offer

FIELDS = ("model", "second", "text", "text_pair", "method")
METHOD_NAMES: dict[Method, str | Promise] = {
    "leave_one_out": _("leave out one word at a time"),
    "integrated_gradients": _("integrated gradients (slower)"),
}


@login_required
@throttle_posts("predict")
def page(request: SignedInRequest) -> HttpResponse:
    """Answer one text, or a pair of texts, and compare a second model's answer."""
    data = request.POST or request.GET
    values = {name: data.get(name, "") for name in FIELDS}
    method: Method = "integrated_gradients" if values["method"] == "integrated_gradients" else "leave_one_out"
    values["method"] = method
    models = models_for(request.user)
    choices = choose_models(models, values)
    names = [values["model"], values["second"]] if values["second"] else [values["model"]]
    second_texts = {name: values["text_pair"] or None for name in names if reads_pairs(models, name)}
    context: dict[str, Any] = {
        **choices,
        "values": values,
        "methods": METHOD_NAMES.items(),
        "reads_pairs": bool(second_texts),
    }
    if request.method == "POST":
        try:
            answers = [
                answer_with_explanations(
                    user=request.user, text=values["text"], text_pair=second_texts.get(name), model=name, method=method
                )
                for name in names
            ]
        except LorasiteError as error:
            context["error"] = error.message
        else:
            context["answers"] = answers
            context["copies"] = copies(request, answers[0]["model"], values["text"], second_texts.get(names[0]))
    return render(request, "inference/predict.html", context)


def choose_models(models: Models, values: dict[str, str], bases: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a page's selects offer. In values, name the champion of a model, and the first one if none was chosen.

    bases: base models that are offered after what was trained here.
    """
    versions = models.offered_versions()
    _registered, experiments = models.offered()
    experiments = [(name, score) for name, score in experiments if name not in versions]
    runs = [name for name, _score in experiments]
    for field in ("model", "second"):  # the name of a model means its champion
        if values[field] in versions:
            values[field] = preferred_offer(versions[values[field]])
    usual = [*map(preferred_offer, versions.values()), *runs, *bases]
    values["model"] = values["model"] or next(iter(usual), "")  # as a browser does
    tuned = [offer.name for offers in versions.values() for offer in offers] + runs
    return {"versions": versions, "experiments": experiments, "tuned": tuned, "names": {*tuned, *bases}}


def reads_pairs(models: Models, name: str) -> bool:
    """Return whether there is a model of this name that was trained on pairs of texts."""
    try:
        return services.reads_pairs(models.named(name))
    except LorasiteError:
        return False


@login_required
@throttle_posts("predict")
def chat(request: SignedInRequest) -> HttpResponse:
    """Chat with one language model, or with two side by side. Without JavaScript, a form brings each answer whole."""
    state, error = Chat.blank(), None
    try:
        state = Chat.read(request.POST or request.GET)
        if request.POST.get("do") == "download":
            headers = {"Content-Disposition": 'attachment; filename="conversation.jsonl"'}
            return HttpResponse(state.transcript(), content_type="application/jsonl; charset=utf-8", headers=headers)
        if request.method == "POST":
            carry_out(state, request.POST.get("do", "send"), request.user)
    except LorasiteError as refused:
        error = refused.message
    models = replace(models_for(request.user), write=True)
    bases = base_model_names(models)
    context: dict[str, Any] = {
        **choose_models(models, state.values, bases),
        "chat": state,
        "values": state.values,
        "error": error,
        "bases": bases,
        "sample_runs": sample_runs(request.user),
        "most_tokens": MOST_TOKENS,
        "usual_tokens": USUAL_TOKENS,
    }
    if state.exchanges:
        context["copies"] = chat_copies(request, state.body(request.user, 0))
    return render(request, "inference/chat.html", context)


def carry_out(state: Chat, action: str, user: User) -> None:
    """Do what a button of the chat page says: send, again, edit; with "code" nothing but show the page."""
    if action == "edit":
        state.take_back_question()
    elif action in ("send", "again"):
        state.open_question(action)
        state.answer(user)


@login_required
@require_POST
@throttle_posts("predict")
def chat_stream(request: SignedInRequest) -> StreamingHttpResponse:
    """Stream the answer of one model of the chat page, as /v1/chat/completions does."""
    state = Chat.read(request.POST)
    state.open_question(request.POST.get("do", "send"))
    column = 1 if request.POST.get("column") == "1" else 0
    pieces = state.open_answer(request.user, column)
    return event_stream(Writer(CHAT, state.names[column], sends_usage=False).events(pieces))


@login_required
@require_GET
@vary_on_headers("HX-Request")
def recommend(request: SignedInRequest) -> HttpResponse:
    """The models that match a dataset, measured on its rows: a page, or only the part that the models page loads."""
    data = recommendation.data_for(request.user, request.GET.get("dataset", ""))
    context = {"data": data, "recommendation": recommendation.recommend(user=request.user, data=data)}
    template = "inference/recommend.html#measured" if request.htmx else "inference/recommend.html"
    return render(request, template, context)
