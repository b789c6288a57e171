"""Expected access: every address of the site with the status that each caller gets. test_access.py requests them all.

A line is a method, an address as its pattern says it, and the answers to: an anonymous caller; a viewer and a member who
have nothing to do with the object; a reader, with whom its owner shares it for looking; the owner; an admin.
"""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import RefreshToken

PEOPLE = ("anonymous", "viewer", "stranger", "reader", "owner", "admin")

PAGES = """
GET    /                                           302 200 200 200 200 200
POST   /                                           302 200 200 200 200 200
GET    find/                                       302 200 200 200 200 200
POST   find/                                       302 405 405 405 405 405
GET    undo/                                       302 405 405 405 405 405
POST   undo/                                       302 409 409 409 409 409
GET    running/                                    302 200 200 200 200 200
POST   running/                                    302 405 405 405 405 405
GET    login/                                      200 302 302 302 302 302
POST   login/                                      200 302 302 302 302 302
GET    logout/                                     405 405 405 405 405 405
POST   logout/                                     302 302 302 302 302 302
GET    login/closed/                               200 200 200 200 200 200
POST   login/closed/                               405 405 405 405 405 405
GET    password/forgot/                            200 200 200 200 200 200
POST   password/forgot/                            200 200 200 200 200 200
GET    password/forgot/sent/                       200 200 200 200 200 200
POST   password/forgot/sent/                       405 405 405 405 405 405
GET    password/new/<str:uidb64>/<str:token>/      200 200 200 200 200 200
POST   password/new/<str:uidb64>/<str:token>/      200 200 200 200 200 200
GET    join/<str:secret>/                          404 404 404 404 404 404
GET    join/<invitation>/                          200 200 200 200 200 200
POST   join/<str:secret>/                          404 404 404 404 404 404
GET    account/                                    302 200 200 200 200 200
POST   account/                                    302 405 405 405 405 405
GET    account/tokens/                             302 200 200 200 200 200
POST   account/tokens/                             302 200 200 200 200 200
GET    account/tokens/<int:pk>/end/                302 405 405 405 405 405
POST   account/tokens/<int:pk>/end/                302 404 404 404 302 404
GET    account/sessions/                           302 200 200 200 200 200
POST   account/sessions/                           302 302 302 302 302 302
GET    notifications/                              302 200 200 200 200 200
POST   notifications/                              302 405 405 405 405 405
GET    account/notifications/                      302 200 200 200 200 200
POST   account/notifications/                      302 302 302 302 302 302
GET    account/confirm/                            302 200 200 200 200 200
POST   account/confirm/                            302 200 200 200 200 200
GET    people/                                     302 403 403 403 403 200
POST   people/                                     302 403 403 403 403 200
GET    people/invitations/<int:pk>/end/            302 405 405 405 405 405
POST   people/invitations/<int:pk>/end/            302 403 403 403 403 302
GET    people/id/<int:pk>/                         302 403 403 403 403 200
POST   people/id/<int:pk>/                         302 403 403 403 403 200
GET    people/<str:username>/                      302 403 403 403 403 200
POST   people/<str:username>/                      302 403 403 403 403 200
GET    sharing/<str:kind>/<str:name>/              302 405 405 405 405 405
POST   sharing/<str:kind>/<str:name>/              302 404 404 403 302 302
GET    tags/<str:kind>/<str:name>/                 302 405 405 405 405 405
POST   tags/<str:kind>/<str:name>/                 302 404 404 403 302 302
GET    bulk/datasets/                              302 405 405 405 405 405
POST   bulk/datasets/                              302 302 302 302 302 302
GET    bulk/runs/                                  302 405 405 405 405 405
POST   bulk/runs/                                  302 302 302 302 302 302
GET    bulk/models/                                302 405 405 405 405 405
POST   bulk/models/                                302 302 302 302 302 302
GET    density/                                    302 405 405 405 405 405
POST   density/                                    302 302 302 302 302 302
GET    views/<str:kind>/                           302 405 405 405 405 405
POST   views/<str:kind>/                           302 302 302 302 302 302
GET    notes/<str:kind>/<str:name>/                302 405 405 405 405 405
POST   notes/<str:kind>/<str:name>/                302 404 404 403 302 302
GET    account/second-factor/                      302 200 200 200 200 200
POST   account/second-factor/                      302 405 405 405 405 405
GET    account/second-factor/authenticate/         302 302 302 302 302 302
POST   account/second-factor/authenticate/         302 302 302 302 302 302
GET    account/second-factor/reauthenticate/       302 302 302 302 302 302
POST   account/second-factor/reauthenticate/       302 302 302 302 302 302
GET    account/second-factor/totp/activate/        404 404 404 404 404 404
POST   account/second-factor/totp/activate/        404 404 404 404 404 404
GET    account/second-factor/totp/deactivate/      302 404 404 404 404 404
POST   account/second-factor/totp/deactivate/      302 404 404 404 404 404
GET    account/second-factor/recovery-codes/       302 404 404 404 404 404
POST   account/second-factor/recovery-codes/       302 405 405 405 405 405
GET    account/second-factor/recovery-codes/generate/ 302 302 302 302 302 302
POST   account/second-factor/recovery-codes/generate/ 302 302 302 302 302 302
GET    account/second-factor/recovery-codes/download/ 302 404 404 404 404 404
POST   account/second-factor/recovery-codes/download/ 302 404 404 404 404 404
GET    account/second-factor/webauthn/             302 200 200 200 200 200
POST   account/second-factor/webauthn/             302 405 405 405 405 405
GET    account/second-factor/webauthn/add/         404 404 404 404 404 404
POST   account/second-factor/webauthn/add/         404 404 404 404 404 404
GET    account/second-factor/webauthn/reauthenticate/ 302 302 302 302 302 302
POST   account/second-factor/webauthn/reauthenticate/ 302 302 302 302 302 302
GET    account/second-factor/webauthn/keys/<int:pk>/remove/ 302 302 302 302 302 302
POST   account/second-factor/webauthn/keys/<int:pk>/remove/ 302 302 302 302 302 302
GET    account/second-factor/webauthn/keys/<int:pk>/edit/ 302 302 302 302 302 302
POST   account/second-factor/webauthn/keys/<int:pk>/edit/ 302 302 302 302 302 302
GET    sso/<str:provider_id>/login/               404 404 404 404 404 404
POST   sso/<str:provider_id>/login/               404 404 404 404 404 404
GET    sso/<str:provider_id>/callback/           404 404 404 404 404 404
POST   sso/<str:provider_id>/callback/           404 404 404 404 404 404
GET    sso/login/cancelled/                        404 404 404 404 404 404
POST   sso/login/cancelled/                        404 404 404 404 404 404
GET    sso/login/error/                            404 404 404 404 404 404
POST   sso/login/error/                            404 404 404 404 404 404
GET    sso/signup/                                 404 404 404 404 404 404
POST   sso/signup/                                 404 404 404 404 404 404
GET    sso/                                        404 404 404 404 404 404
POST   sso/                                        404 404 404 404 404 404
GET    account/password/                           302 200 200 200 200 200
POST   account/password/                           302 200 200 200 200 200
GET    datasets/                                   302 200 200 200 200 200
POST   datasets/                                   302 405 405 405 405 405
GET    datasets/new/                               302 403 200 403 200 200
POST   datasets/new/                               302 403 200 403 200 200
GET    datasets/new/hub/                           302 405 405 405 405 405
POST   datasets/new/hub/                           302 403 400 403 400 400
GET    datasets/new/<str:token>/                   302 403 404 403 200 404
POST   datasets/new/<str:token>/                   302 403 404 403 302 404
GET    datasets/<str:name>/                        302 404 404 200 200 200
POST   datasets/<str:name>/                        302 405 405 405 405 405
GET    datasets/<str:name>/rows/                   302 404 404 200 200 200
POST   datasets/<str:name>/rows/                   302 405 405 405 405 405
GET    datasets/tasks/states/                      302 200 200 200 200 200
POST   datasets/tasks/states/                      302 405 405 405 405 405
GET    datasets/tasks/<uuid:task_id>/              302 404 404 404 200 200
POST   datasets/tasks/<uuid:task_id>/              302 405 405 405 405 405
GET    datasets/tasks/<uuid:task_id>/cancel/       302 405 405 405 405 405
POST   datasets/tasks/<uuid:task_id>/cancel/       302 404 404 404 302 302
GET    datasets/<str:name>/tokens/                 302 405 405 405 405 405
POST   datasets/<str:name>/tokens/                 302 404 404 403 302 302
GET    datasets/<str:name>/broken/                 302 404 404 404 404 404
POST   datasets/<str:name>/broken/                 302 405 405 405 405 405
GET    datasets/<str:name>/compare/                302 404 404 200 200 200
POST   datasets/<str:name>/compare/                302 405 405 405 405 405
GET    datasets/<str:name>/download/               302 404 404 200 200 200
POST   datasets/<str:name>/download/               302 405 405 405 405 405
GET    datasets/<str:name>/fix/                    302 404 404 403 302 302
POST   datasets/<str:name>/fix/                    302 404 404 403 302 302
GET    datasets/<str:name>/labels/                 302 405 405 405 405 405
POST   datasets/<str:name>/labels/                 302 404 404 403 302 302
GET    datasets/<str:name>/draft/                  302 404 404 403 200 200
POST   datasets/<str:name>/draft/                  302 404 404 403 302 302
GET    datasets/<str:name>/edit/                   302 405 405 405 405 405
POST   datasets/<str:name>/edit/                   302 404 404 403 302 302
GET    datasets/<str:name>/noise/                  302 404 404 200 200 200
POST   datasets/<str:name>/noise/                  302 405 405 405 405 405
GET    datasets/<str:name>/noise/search/           302 405 405 405 405 405
POST   datasets/<str:name>/noise/search/           302 404 404 403 302 302
GET    datasets/<str:name>/noise/decide/           302 405 405 405 405 405
POST   datasets/<str:name>/noise/decide/           302 404 404 403 302 302
GET    datasets/<str:name>/noise/apply/            302 405 405 405 405 405
POST   datasets/<str:name>/noise/apply/            302 404 404 403 302 302
GET    datasets/<str:name>/delete/                 302 405 405 405 405 405
POST   datasets/<str:name>/delete/                 302 404 404 403 302 302
GET    train/                                      302 403 200 403 200 200
GET    train/?like=<name>                          302 403 404 403 200 200
POST   train/                                      302 403 400 403 400 400
GET    train/base-models/                          302 403 200 403 200 200
POST   train/base-models/                          302 405 405 405 405 405
GET    runs/states/                                302 286 286 286 286 286
POST   runs/states/                                302 405 405 405 405 405
GET    runs/again/                                 302 405 405 405 405 405
POST   runs/again/                                 302 404 404 404 404 404
GET    runs/<uuid:task_id>/                        302 404 404 200 200 200
GET    runs/<uuid:task_id>/?tab=access             302 404 404 200 200 200
GET    runs/<uuid:task_id>/?tab=files              302 404 404 200 200 200
POST   runs/<uuid:task_id>/                        302 404 404 200 200 200
GET    runs/<uuid:task_id>/cancel/                 302 405 405 405 405 405
POST   runs/<uuid:task_id>/cancel/                 302 404 404 403 302 302
GET    runs/<uuid:task_id>/answers.jsonl           302 404 404 200 200 200
POST   runs/<uuid:task_id>/answers.jsonl           302 405 405 405 405 405
GET    runs/<uuid:task_id>/curves.csv              302 404 404 200 200 200
POST   runs/<uuid:task_id>/curves.csv              302 405 405 405 405 405
GET    runs/<uuid:task_id>/resume/                 302 405 405 405 405 405
POST   runs/<uuid:task_id>/resume/                 302 404 404 403 302 302
GET    experiments/                                302 200 200 200 200 200
POST   experiments/                                302 405 405 405 405 405
GET    experiments/compare                         302 400 400 400 400 400
GET    experiments/compare?name=<name>&name=waiting 302 404 404 200 200 200
POST   experiments/compare                         302 405 405 405 405 405
GET    experiments/<str:name>/delete/              302 405 405 405 405 405
POST   experiments/<str:name>/delete/              302 404 404 403 302 302
GET    experiments/<str:name>/all.zip              302 404 404 200 200 200
POST   experiments/<str:name>/all.zip              302 405 405 405 405 405
GET    experiments/<str:name>/                     302 404 404 302 302 302
POST   experiments/<str:name>/                     302 405 405 405 405 405
GET    experiments/<str:name>/files/<path:path>    302 404 404 200 200 200
POST   experiments/<str:name>/files/<path:path>    302 405 405 405 405 405
GET    models/                                     302 200 200 200 200 200
POST   models/                                     302 405 405 405 405 405
GET    models/register/?experiment=<name>          302 404 404 403 200 200
POST   models/register/                            302 404 404 403 409 409
GET    models/recommend/?dataset=<name>            302 404 404 200 200 200
POST   models/recommend/                           302 405 405 405 405 405
GET    models/<str:name>/                          302 404 404 200 200 200
POST   models/<str:name>/                          302 405 405 405 405 405
GET    models/<str:name>/archive.zip               302 404 404 200 200 200
POST   models/<str:name>/archive.zip               302 405 405 405 405 405
GET    models/<str:name>/card/                     302 405 405 405 405 405
POST   models/<str:name>/card/                     302 404 404 403 302 302
GET    models/<str:name>/alias/                    302 405 405 405 405 405
POST   models/<str:name>/alias/                    302 404 404 403 302 302
GET    models/<str:name>/exports/                  302 404 404 302 302 302
POST   models/<str:name>/exports/                  302 404 404 403 302 302
GET    models/<str:name>/exports/<str:format>/cancel/ 302 405 405 405 405 405
POST   models/<str:name>/exports/<str:format>/cancel/ 302 404 404 403 302 302
GET    models/<str:name>/exports/<str:format>/delete/ 302 405 405 405 405 405
POST   models/<str:name>/exports/<str:format>/delete/ 302 404 404 403 409 409
GET    models/<str:name>/exports/<str:format>.zip  302 404 404 404 404 404
POST   models/<str:name>/exports/<str:format>.zip  302 405 405 405 405 405
GET    models/<str:name>/delete/                   302 405 405 405 405 405
POST   models/<str:name>/delete/                   302 404 404 403 302 302
GET    predict/                                    302 200 200 200 200 200
POST   predict/                                    302 200 200 200 200 200
GET    chat/                                       302 200 200 200 200 200
POST   chat/                                       302 200 200 200 200 200
GET    chat/stream/                                302 405 405 405 405 405
POST   chat/stream/                                302 400 400 400 400 400
GET    audit/                                      302 403 403 403 403 200
POST   audit/                                      302 405 405 405 405 405
GET    audit/export/                               302 403 403 403 403 200
POST   audit/export/                               302 405 405 405 405 405
GET    system/                                     302 403 403 403 403 200
POST   system/                                     302 405 405 405 405 405
GET    healthz                                     200 200 200 200 200 200
POST   healthz                                     405 405 405 405 405 405
GET    readyz?only=database                        200 200 200 200 200 200
POST   readyz                                      405 405 405 405 405 405
GET    metrics                                     403 403 403 403 403 403
POST   metrics                                     405 405 405 405 405 405
GET    i18n/setlang/                               302 302 302 302 302 302
POST   i18n/setlang/                               302 302 302 302 302 302
"""

API = """
POST   api/login                                   400 400 400 400 400 400
POST   api/login/refresh                           400 400 400 400 400 400
GET    api/sharing/<str:kind>/<str:name>           401 404 404 200 200 200
POST   api/sharing/<str:kind>/<str:name>           401 404 404 403 200 200
POST   api/logout                                  400 400 400 400 400 400
GET    api/audit/logs                              401 403 403 403 403 200
GET    api/datasets                                401 200 200 200 200 200
POST   api/datasets                                401 403 400 403 400 400
GET    api/datasets/<str:name>                     401 404 404 200 200 200
PATCH  api/datasets/<str:name>                     401 404 404 403 200 200
DELETE api/datasets/<str:name>                     401 404 404 403 409 409
GET    api/datasets/tasks/<uuid:task_id>            401 404 404 404 200 200
POST   api/datasets/tasks/<uuid:task_id>/cancel     401 404 404 404 202 202
POST   api/datasets/<str:name>/changes             401 404 404 403 201 201
GET    api/datasets/<str:name>/rows                401 404 404 200 200 200
GET    api/datasets/<str:name>/download            401 404 404 200 200 200
GET    api/datasets/<str:name>/diff                401 404 404 200 200 200
GET    api/datasets/<str:name>/noise               401 404 404 200 200 200
POST   api/datasets/<str:name>/noise               401 404 404 403 202 202
POST   api/datasets/<str:name>/noise/<int:rank>    401 404 404 403 200 200
GET    api/experiments                             401 403 403 403 403 200
GET    api/experiments/mine                        401 200 200 200 200 200
POST   api/experiments/delete                      401 200 200 200 200 200
GET    api/experiments/<str:name>                  401 404 404 200 200 200
PATCH  api/experiments/<str:name>                  401 404 404 403 200 200
DELETE api/experiments/<str:name>                  401 404 404 403 204 204
GET    api/experiments/<str:name>/files/<path:path> 401 404 404 200 200 200
GET    api/models                                  401 200 200 200 200 200
POST   api/models                                  401 403 404 403 409 409
GET    api/models/recommend?dataset=<name>         401 404 404 200 200 200
GET    api/models/<str:name>                       401 404 404 200 200 200
PATCH  api/models/<str:name>                       401 404 404 403 200 200
DELETE api/models/<str:name>                       401 404 404 403 204 204
GET    api/models/<str:name>/archive               401 404 404 200 200 200
GET    api/models/<str:name>/exports               401 404 404 200 200 200
POST   api/models/<str:name>/exports               401 404 404 403 202 202
GET    api/models/<str:name>/exports/<str:export_format> 401 404 404 200 200 200
DELETE api/models/<str:name>/exports/<str:export_format> 401 404 404 403 409 409
POST   api/models/<str:name>/exports/<str:export_format>/cancel 401 404 404 403 202 202
GET    api/models/<str:name>/exports/<str:export_format>/archive 401 404 404 404 404 404
PUT    api/models/<str:name>/aliases/<str:alias>   401 404 404 403 200 200
DELETE api/models/<str:name>/aliases/<str:alias>   401 404 404 403 204 204
GET    api/base-models                             401 200 200 200 200 200
POST   api/train                                   401 403 400 403 202 202
POST   api/train/validate                          401 403 400 403 200 200
GET    api/tasks                                   401 200 200 200 200 200
POST   api/tasks/cancel                            401 200 200 200 200 200
GET    api/task/<uuid:task_id>                     401 404 404 200 200 200
POST   api/task/<uuid:task_id>/cancel              401 404 404 403 202 202
POST   api/task/<uuid:task_id>/resume              401 404 404 403 202 202
GET    api/task/<uuid:task_id>/logs                401 404 404 200 200 200
POST   api/predict                                 401 404 404 409 409 409
POST   v1/chat/completions                         401 404 404 400 400 400
POST   v1/completions                              401 404 404 400 400 400
GET    v1/models                                   401 200 200 200 200 200
GET    v1/models/<path:name>                       401 404 404 400 400 400
GET    api/system                                  401 403 403 403 403 200
GET    api/schema                                  200 200 200 200 200 200
GET    api/docs                                    200 200 200 200 200 200
"""

API_ADDRESSES = ("api/", "v1/")
PROBES = ("healthz", "readyz", "metrics")
BODIES: dict[str, Any] = {  # what a POST carries; else nothing
    "api/train": {"experiment_name": "new", "data": {"dataset_name": "private"}},
    "api/train/validate": {"data": {"dataset_name": "private"}},
    "api/sharing/<str:kind>/<str:name>": {"to": "viewer", "access": "view"},
    "sharing/<str:kind>/<str:name>/": {"to": "viewer", "access": "view"},
    "tags/<str:kind>/<str:name>/": {"tag": "prod"},
    "views/<str:kind>/": {"name": "Mine", "query": "owner=me"},
    "notes/<str:kind>/<str:name>/": {"note": "Ours."},
    "api/datasets/<str:name>": {"note": "Ours."},
    "api/experiments/<str:name>": {"note": "Ours."},
    "api/experiments/delete": {"names": ["private"]},
    "api/tasks/cancel": {"task_ids": ["00000000-0000-4000-8000-000000000000"]},
    "api/predict": {"text": "a fine day", "model": "private"},
    "v1/chat/completions": {"model": "private", "messages": [{"role": "user", "content": "a fine day"}]},
    "v1/completions": {"model": "private", "prompt": "a fine day"},
    "api/datasets/<str:name>/changes": {"did": "edit", "rows": {"1": {"text": "a fine day indeed"}}},
    "api/datasets/<str:name>/noise/<int:rank>": {"label": "good"},
    "predict/": {"text": "a fine day", "model": "private"},
    "models/register/": {"experiment": "private", "name": "new"},
    "models/<str:name>/card/": {"summary": "Moods.", "card": "Ours."},
    "models/<str:name>/alias/": {"alias": "champion"},
    "api/models": {"experiment": "private", "name": "new"},
    "api/models/<str:name>": {"card": "Ours."},
    "models/<str:name>/exports/": {"format": "safetensors"},
    "api/models/<str:name>/exports": {"format": "safetensors"},
    "api/models/<str:name>/aliases/<str:alias>": {"version": 1},
    "datasets/<str:name>/fix/": {"code": "markup"},
    "datasets/<str:name>/labels/": {"labels": "good", "to": "fine"},
    "datasets/<str:name>/edit/": {"row": "1", "text": "a fine day indeed", "label": "good"},
    "datasets/<str:name>/noise/decide/": {"rank": "1", "label": "good"},
}


def lines(table: str) -> list[tuple[str, str, list[int]]]:
    rows = [line.split() for line in table.strip().splitlines()]
    return [(method, address, [int(code) for code in codes]) for method, address, *codes in rows]


def filled(address: str, arguments: dict[str, str]) -> str:
    """Return the path with its placeholders filled in. A run to cancel is one that still waits."""
    values = arguments | ({"task_id": arguments["waiting"]} if "/cancel" in address else {})
    values |= {"task_id": arguments["data_task"]} if "datasets/tasks" in address else {}
    values |= {"pk": arguments["open"]} if "invitations" in address else {}
    values |= {"pk": arguments["person"]} if "people/id/" in address else {}
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda match: values[match[1]], address.removeprefix("/"))


def client_of(person: Any, *, api: bool = False) -> Any:
    client: Any = APIClient() if api else Client()
    if person and api:
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {RefreshToken.for_user(person).access_token}")
    elif person:
        client.force_login(person)
    return client


def send(client: Any, method: str, path: str, body: Any = None) -> Any:
    """Send a request, undo its changes (also a logout of the client), and return the response."""
    cookies = deepcopy(client.cookies)
    options = {"format": "json"} if isinstance(client, APIClient) and body is not None else {}
    with transaction.atomic():
        response = getattr(client, method.lower())(path, body, **options)
        transaction.set_rollback(True)
    client.cookies = cookies
    return response


def answer(client: Any, method: str, path: str, body: Any = None) -> int:
    return int(send(client, method, path, body).status_code)


def views(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in resolver.url_patterns:
        address = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield address, pattern.callback
        else:
            yield from views(pattern, address)


def patterns(resolver: URLResolver) -> Iterator[str]:
    yield from (address for address, _view in views(resolver))
