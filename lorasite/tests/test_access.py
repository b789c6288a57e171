"""Who may do what: every address of the site, asked by everybody. An address without a line here fails the test.

A line is a method, an address as its pattern says it, and the answers to: an anonymous caller; a viewer and a member who
have nothing to do with the object; a reader, with whom its owner shares it for looking; the owner; an admin.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient, APIRequestFactory
from rest_framework.views import APIView
from rest_framework_simplejwt.tokens import RefreshToken

from accounts.authentication import HasScope
from accounts.models import Role
from accounts.permissions import grant_access
from accounts.services import invite, make_token
from conftest import make_user
from datasets_app.reading import uploads
from training.models import Status, Task

from .rows import belongings

PEOPLE = ("anonymous", "viewer", "stranger", "reader", "owner", "admin")

PAGES = """
GET    /                                           302 200 200 200 200 200
POST   /                                           302 200 200 200 200 200
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
GET    datasets/<str:name>/fix/                    302 405 405 405 405 405
POST   datasets/<str:name>/fix/                    302 404 404 403 302 302
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
GET    runs/again/                                 302 405 405 405 405 405
POST   runs/again/                                 302 404 404 404 404 404
GET    runs/<uuid:task_id>/                        302 404 404 200 200 200
POST   runs/<uuid:task_id>/                        302 404 404 200 200 200
GET    runs/<uuid:task_id>/cancel/                 302 405 405 405 405 405
POST   runs/<uuid:task_id>/cancel/                 302 404 404 403 302 302
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
GET    experiments/<str:name>/                     302 404 404 200 200 200
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
GET    models/<str:name>/delete/                   302 405 405 405 405 405
POST   models/<str:name>/delete/                   302 404 404 403 302 302
GET    predict/                                    302 200 200 200 200 200
POST   predict/                                    302 200 200 200 200 200
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
DELETE api/datasets/<str:name>                     401 404 404 403 409 409
GET    api/datasets/tasks/<uuid:task_id>            401 404 404 404 200 200
POST   api/datasets/tasks/<uuid:task_id>/cancel     401 404 404 404 202 202
POST   api/datasets/<str:name>/changes             401 404 404 403 201 201
GET    api/datasets/<str:name>/rows                401 404 404 200 200 200
GET    api/datasets/<str:name>/diff                401 404 404 200 200 200
GET    api/datasets/<str:name>/noise               401 404 404 200 200 200
POST   api/datasets/<str:name>/noise               401 404 404 403 202 202
POST   api/datasets/<str:name>/noise/<int:rank>    401 404 404 403 200 200
GET    api/experiments                             401 403 403 403 403 200
GET    api/experiments/mine                        401 200 200 200 200 200
POST   api/experiments/delete                      401 200 200 200 200 200
GET    api/experiments/<str:name>                  401 404 404 200 200 200
DELETE api/experiments/<str:name>                  401 404 404 403 204 204
GET    api/experiments/<str:name>/files/<path:path> 401 404 404 200 200 200
GET    api/models                                  401 200 200 200 200 200
POST   api/models                                  401 403 404 403 409 409
GET    api/models/recommend?dataset=<name>         401 404 404 200 200 200
GET    api/models/<str:name>                       401 404 404 200 200 200
PATCH  api/models/<str:name>                       401 404 404 403 200 200
DELETE api/models/<str:name>                       401 404 404 403 204 204
GET    api/models/<str:name>/archive               401 404 404 200 200 200
PUT    api/models/<str:name>/aliases/<str:alias>   401 404 404 403 200 200
DELETE api/models/<str:name>/aliases/<str:alias>   401 404 404 403 204 204
POST   api/train                                   401 403 400 403 202 202
POST   api/train/validate                          401 403 400 403 200 200
GET    api/tasks                                   401 200 200 200 200 200
POST   api/tasks/cancel                            401 200 200 200 200 200
GET    api/task/<uuid:task_id>                     401 404 404 200 200 200
POST   api/task/<uuid:task_id>/cancel              401 404 404 403 202 202
POST   api/task/<uuid:task_id>/resume              401 404 404 403 202 202
GET    api/task/<uuid:task_id>/logs                401 404 404 200 200 200
POST   api/predict                                 401 404 404 409 409 409
GET    api/system                                  401 403 403 403 403 200
GET    api/schema                                  200 200 200 200 200 200
GET    api/docs                                    200 200 200 200 200 200
"""

PROBES = ("healthz", "readyz", "metrics")
BODIES: dict[str, Any] = {  # what a POST carries; else nothing
    "api/train": {"experiment_name": "new", "data": {"dataset_name": "private"}},
    "api/train/validate": {"data": {"dataset_name": "private"}},
    "api/sharing/<str:kind>/<str:name>": {"to": "viewer", "access": "view"},
    "sharing/<str:kind>/<str:name>/": {"to": "viewer", "access": "view"},
    "api/experiments/delete": {"names": ["private"]},
    "api/tasks/cancel": {"task_ids": ["00000000-0000-4000-8000-000000000000"]},
    "api/predict": {"text": "a fine day", "model": "private"},
    "api/datasets/<str:name>/changes": {"did": "edit", "rows": {"1": {"text": "a fine day indeed"}}},
    "api/datasets/<str:name>/noise/<int:rank>": {"label": "good"},
    "predict/": {"text": "a fine day", "model": "private"},
    "models/register/": {"experiment": "private", "name": "new"},
    "models/<str:name>/card/": {"summary": "Moods.", "card": "Ours."},
    "models/<str:name>/alias/": {"alias": "champion"},
    "api/models": {"experiment": "private", "name": "new"},
    "api/models/<str:name>": {"card": "Ours."},
    "api/models/<str:name>/aliases/<str:alias>": {"version": 1},
    "datasets/<str:name>/fix/": {"code": "markup"},
    "datasets/<str:name>/edit/": {"row": "1", "text": "a fine day indeed", "label": "good"},
    "datasets/<str:name>/noise/decide/": {"rank": "1", "label": "good"},
}


def lines(table: str) -> list[tuple[str, str, list[int]]]:
    rows = [line.split() for line in table.strip().splitlines()]
    return [(method, address, [int(code) for code in codes]) for method, address, *codes in rows]


@pytest.fixture
def people(db: None) -> dict[str, Any]:
    roles = {"viewer": "viewer", "stranger": "member", "reader": "viewer", "owner": "member", "admin": "admin"}
    return {"anonymous": None} | {name: make_user(name, role) for name, role in roles.items()}


@pytest.fixture
def arguments(people: dict[str, Any], tweets_csv: Any) -> dict[str, str]:
    """What stands for <name>, <task_id>, … in an address."""
    owned, waiting = belongings(people["owner"], "private"), belongings(people["owner"], "waiting")
    for shared in (owned, waiting):
        for thing in (shared.dataset, shared.experiment, shared.model):
            grant_access(thing, to=people["reader"])
    Task.objects.filter(pk=waiting.task.pk).update(status=Status.PENDING)
    upload = SimpleUploadedFile("mine.csv", tweets_csv.read_bytes())
    token = uploads.keep_upload(user=people["owner"], upload=upload).token
    ids = {
        "task_id": str(owned.task.pk),
        "waiting": str(waiting.task.pk),
        "data_task": str(owned.data_task.pk),
        "rank": "1",
        "alias": "champion",
    }
    api_token, _secret = make_token(user=people["owner"], name="script", scopes=["read"], days=1)
    invitation, link = invite(user=people["admin"], role=Role.VIEWER)
    ids |= {"pk": str(api_token.pk), "open": str(invitation.pk), "invitation": link, "person": str(people["viewer"].pk)}
    spare = {"secret": "ls_inv_none", "uidb64": "MQ", "username": "viewer", "kind": "dataset", "provider_id": "oidc"}
    return {"name": "private", "path": "config.yaml", "token": token, **ids, **spare}


def filled(address: str, arguments: dict[str, str]) -> str:
    """The path; a run that is to be cancelled is one that still waits."""
    known = arguments | ({"task_id": arguments["waiting"]} if "/cancel" in address else {})
    known |= {"task_id": arguments["data_task"]} if "datasets/tasks" in address else {}
    known |= {"pk": arguments["open"]} if "invitations" in address else {}
    known |= {"pk": arguments["person"]} if "people/id/" in address else {}
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda found: known[found[1]], address.removeprefix("/"))


def client_of(person: Any, *, api: bool = False) -> Any:
    client: Any = APIClient() if api else Client()
    if person and api:
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {RefreshToken.for_user(person).access_token}")
    elif person:
        client.force_login(person)
    return client


def ask(client: Any, method: str, path: str, body: Any = None) -> Any:
    """The answer, with whatever the request changed undone."""
    options = {"format": "json"} if isinstance(client, APIClient) and body is not None else {}
    with transaction.atomic():
        found = getattr(client, method.lower())(path, body, **options)
        transaction.set_rollback(True)
    return found


def answer(client: Any, method: str, path: str, body: Any = None) -> int:
    return int(ask(client, method, path, body).status_code)


KEPT_BY_NOBODY, ASKED_ANEW = {"private", "no-store"}, {"private", "no-cache"}


def caches(response: Any) -> set[str]:
    """What an answer tells caches."""
    return {directive.strip() for directive in response.get("Cache-Control", "").split(",")}


def is_kept(method: str, address: str, response: Any) -> bool:
    """Whether a cache may show the answer again unasked; programs may keep what they ask anew with its tag."""
    directives = caches(response)
    asked_anew = address.startswith("api/") and method == "GET" and directives == ASKED_ANEW and "ETag" in response
    return not (directives >= KEPT_BY_NOBODY or asked_anew)


@pytest.mark.parametrize(("method", "address", "codes"), lines(PAGES) + lines(API))
def test_everybody_gets_the_answer_of_the_table(
    people: dict[str, Any], arguments: dict[str, str], method: str, address: str, codes: list[int]
) -> None:
    path, body = filled(address, arguments), BODIES.get(address.partition("?")[0]) if method != "GET" else None
    clients = {name: client_of(people[name], api=address.startswith("api/")) for name in PEOPLE}
    answers = {name: ask(client, method, path, body) for name, client in clients.items()}
    assert {name: one.status_code for name, one in answers.items()} == dict(zip(PEOPLE, codes, strict=True))
    if not address.startswith(PROBES):
        assert [name for name, one in answers.items() if is_kept(method, address, one)] == []


@pytest.mark.parametrize(("method", "address", "codes"), [line for line in lines(PAGES) if line[0] == "POST"])
def test_no_page_takes_a_post_that_another_site_sent(
    people: dict[str, Any], arguments: dict[str, str], method: str, address: str, codes: list[int]
) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(people["admin"])
    assert browser.post(filled(address, arguments), BODIES.get(address, {})).status_code == 403


@pytest.mark.parametrize(("method", "address", "codes"), [line for line in lines(API) if line[0] != "GET"])
def test_the_api_takes_no_cookie_that_another_site_sent(
    people: dict[str, Any], arguments: dict[str, str], method: str, address: str, codes: list[int]
) -> None:
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(people["admin"])
    sent = getattr(browser, method.lower())(filled(address, arguments), BODIES.get(address, {}), format="json")
    assert sent.status_code == (400 if codes[0] == 400 else 403)  # what is open to anybody reads no cookie


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_whole_admin_is_closed_to_everybody_but_admins(people: dict[str, Any], method: str) -> None:
    addresses = ["/" + re.sub(r"<.*?>", "1", a) for a in patterns(get_resolver()) if a.startswith("admin/")]
    assert len(addresses) > 50
    clients = {name: client_of(people[name]) for name in PEOPLE if name != "admin"}
    for path in (re.sub(r"\^?\(.*", "accounts/", a) for a in addresses):
        found = {name: answer(client, method, path) for name, client in clients.items()}
        assert found == dict.fromkeys(PEOPLE[1:5], 403) | {"anonymous": 302}, path


@pytest.mark.parametrize("path", ["/api/datasets", "/api/datasets/private", "/api/experiments/mine", "/api/nowhere"])
def test_browser_keeps_no_answer_of_the_api(people: dict[str, Any], arguments: dict[str, str], path: str) -> None:
    assert caches(client_of(people["owner"]).get(path)) == KEPT_BY_NOBODY


@pytest.mark.parametrize("path", ["/admin/", "/admin/training/task/", "/no/such/page"])
def test_no_cache_keeps_pages_that_are_not_in_the_table(people: dict[str, Any], path: str) -> None:
    assert all(caches(client_of(person).get(path)) >= KEPT_BY_NOBODY for person in people.values())


def test_program_is_told_to_ask_anew_with_its_tag(people: dict[str, Any], arguments: dict[str, str]) -> None:
    client = client_of(people["owner"], api=True)
    first = client.get("/api/datasets/private")
    again = client.get("/api/datasets/private", headers={"If-None-Match": first["ETag"]})
    assert [(a.status_code, a["Cache-Control"]) for a in (first, again)] == [
        (s, "private, no-cache") for s in (200, 304)
    ]


def test_static_file_keeps_what_it_says_of_caches(client: Client) -> None:
    assert "no-store" not in client.get("/static/lorasite/icon.svg").get("Cache-Control", "")


LISTS = [
    "/", "/datasets/", "/experiments/", "/train/", "/models/", "/predict/", "/api/datasets", "/api/experiments/mine",
    "/api/models", "/api/tasks",
]  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_no_list_names_what_is_not_shared(people: dict[str, Any], arguments: dict[str, str], path: str) -> None:
    seen = {n: client_of(p, api=path.startswith("/api/")).get(path).content.decode() for n, p in people.items() if p}
    assert [name for name in ("stranger", "owner", "admin") if "private" in seen[name]] == ["owner", "admin"]
    assert "private" not in seen["viewer"]


def views(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in resolver.url_patterns:
        address = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield address, pattern.callback
        else:
            yield from views(pattern, address)


def patterns(resolver: URLResolver) -> Iterator[str]:
    yield from (address for address, _view in views(resolver))


OPEN = {
    "api/login",
    "api/login/refresh",
    "api/logout",
    "api/schema",
    "api/docs",
}  # to anybody, with and without a token


def asks_scopes(view: Any) -> bool:
    """Whether each method of an API view, as it would be set up for a request, demands HasScope itself."""
    view_class = getattr(view, "cls", getattr(view, "view_class", None))
    if not (isinstance(view_class, type) and issubclass(view_class, APIView)):
        return False
    for method in set(view_class.http_method_names) - {"options"}:
        if hasattr(view_class, method):
            instance = view_class(**getattr(view, "initkwargs", {}))
            instance.setup(APIRequestFactory().generic(method, "/"))
            if not any(isinstance(permission, HasScope) for permission in instance.get_permissions()):
                return False
    return True


def test_every_view_of_the_api_asks_the_scopes_of_a_token() -> None:
    api = {
        address: view for address, view in views(get_resolver()) if address.startswith("api/") or hasattr(view, "cls")
    }
    assert len(api) > 30 and {address for address, view in api.items() if not asks_scopes(view)} == OPEN


@pytest.mark.parametrize("scope", ["read", "write", "predict", "admin"])
def test_token_opens_what_its_scope_names_and_nothing_else(
    people: dict[str, Any], arguments: dict[str, str], scope: str
) -> None:
    client = APIClient()
    _token, secret = make_token(user=people["admin"], name="one scope", scopes=[scope], days=1)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    for method, address, _codes in lines(API):
        plain = address.partition("?")[0]
        wanted = "predict" if plain == "api/predict" else "read" if method == "GET" else "write"
        if plain not in OPEN and wanted != scope:
            body = BODIES.get(plain) if method != "GET" else None
            assert answer(client, method, filled(address, arguments), body) == 403, (method, address)


def test_every_page_stands_in_the_table_with_get_and_post() -> None:
    pages = {a for a in patterns(get_resolver()) if not a.startswith(("admin/", "api/"))}
    told = {(method, address.partition("?")[0]) for method, address, _codes in lines(PAGES)}
    assert told - {("GET", "join/<invitation>/")} == {
        (method, address or "/") for address in pages for method in ("GET", "POST")
    }


def test_every_operation_of_the_api_stands_in_the_table() -> None:
    told = {(m, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", "/" + a.partition("?")[0])) for m, a, _codes in lines(API)}
    schema = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    assert told - {("GET", "/api/schema"), ("GET", "/api/docs")} == {
        (method.upper(), path) for path, methods in schema.items() for method in methods
    }
    addresses = {a.partition("?")[0] for _m, a, _codes in lines(API)}
    assert addresses == {a for a in patterns(get_resolver()) if a.startswith("api/")}
