"""Every address of the site, requested by every caller. An address without a line in access_table.py fails a test."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from .access_table import (
    API,
    API_ADDRESSES,
    BODIES,
    PAGES,
    PEOPLE,
    PROBES,
    answer,
    client_of,
    filled,
    lines,
    patterns,
    send,
)

SLOW_AREAS = {  # many addresses, or an answer that takes long to compute
    "", "account", "datasets", "experiments", "models", "password", "people", "runs", "sso", "train",
    "api/datasets", "api/models", "api/schema",
}  # fmt: skip
KEPT_BY_NOBODY, ASKED_ANEW = {"private", "no-store"}, {"private", "no-cache"}


def caches(response: Any) -> set[str]:
    """Return the directives of Cache-Control."""
    return {directive.strip() for directive in response.get("Cache-Control", "").split(",")}


def is_kept(method: str, address: str, response: Any) -> bool:
    """Return whether a cache may reuse the response without asking. Programs may revalidate one with its ETag."""
    directives = caches(response)
    asked_anew = (
        address.startswith(API_ADDRESSES) and method == "GET" and directives == ASKED_ANEW and "ETag" in response
    )
    return not (directives >= KEPT_BY_NOBODY or asked_anew)


def areas() -> dict[str, list[tuple[str, str, list[int]]]]:
    """Return the lines by the beginning of their address: those of one test, which share its people and objects."""
    grouped: dict[str, list[tuple[str, str, list[int]]]] = {}
    for line in lines(PAGES) + lines(API):
        parts = line[1].partition("?")[0].split("/")
        grouped.setdefault("/".join(parts[: 2 if parts[0] == "api" else 1]), []).append(line)
    return grouped


@pytest.mark.medium
@pytest.mark.parametrize(
    "area", [pytest.param(area, marks=pytest.mark.slow if area in SLOW_AREAS else ()) for area in areas()]
)
def test_every_caller_gets_the_status_in_the_table(
    people: dict[str, Any], arguments: dict[str, str], area: str
) -> None:
    clients = {name: client_of(people[name], api=f"{area}/".startswith(API_ADDRESSES)) for name in PEOPLE}
    wrong, kept = [], []
    for method, address, codes in areas()[area]:
        path, body = filled(address, arguments), BODIES.get(address.partition("?")[0]) if method != "GET" else None
        answers = {name: send(client, method, path, body) for name, client in clients.items()}
        statuses = [one.status_code for one in answers.values()]
        if statuses != codes:
            wrong.append((method, address, statuses, codes))
        if not address.startswith(PROBES):
            kept += [(method, address, name) for name, one in answers.items() if is_kept(method, address, one)]
    assert wrong == []
    assert kept == []


@pytest.mark.slow
def test_pages_refuse_a_post_from_another_site(people: dict[str, Any], arguments: dict[str, str]) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(people["admin"])
    addresses = [address for method, address, _codes in lines(PAGES) if method == "POST"]
    statuses = {a: answer(browser, "POST", filled(a, arguments), BODIES.get(a, {})) for a in addresses}
    assert len(addresses) > 60 and statuses == dict.fromkeys(addresses, 403)


@pytest.mark.medium
def test_the_api_refuses_a_cookie_sent_by_another_site(people: dict[str, Any], arguments: dict[str, str]) -> None:
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(people["admin"])
    for method, address, codes in lines(API):
        if method != "GET":
            status = answer(browser, method, filled(address, arguments), BODIES.get(address, {}))
            assert status == (400 if codes[0] == 400 else 403), address  # what is open to anybody reads no cookie


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_whole_admin_is_closed_to_everybody_but_admins(people: dict[str, Any], method: str) -> None:
    addresses = ["/" + re.sub(r"<.*?>", "1", a) for a in patterns(get_resolver()) if a.startswith("admin/")]
    assert len(addresses) > 50
    clients = {name: client_of(people[name]) for name in PEOPLE if name != "admin"}
    for path in (re.sub(r"\^?\(.*", "accounts/", a) for a in addresses):
        statuses = {name: answer(client, method, path) for name, client in clients.items()}
        assert statuses == dict.fromkeys(PEOPLE[1:5], 403) | {"anonymous": 302}, path


@pytest.mark.parametrize("path", ["/api/datasets", "/api/datasets/private", "/api/experiments/mine", "/api/nowhere"])
def test_browser_keeps_no_answer_of_the_api(people: dict[str, Any], arguments: dict[str, str], path: str) -> None:
    assert caches(client_of(people["owner"]).get(path)) == KEPT_BY_NOBODY


@pytest.mark.parametrize("path", ["/admin/", "/admin/training/task/", "/no/such/page"])
def test_no_cache_keeps_pages_that_are_not_in_the_table(people: dict[str, Any], path: str) -> None:
    assert all(caches(client_of(person).get(path)) >= KEPT_BY_NOBODY for person in people.values())


def test_program_must_revalidate_with_its_etag(people: dict[str, Any], arguments: dict[str, str]) -> None:
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


@pytest.mark.medium
@pytest.mark.parametrize("path", LISTS)
def test_no_list_names_what_is_not_shared(people: dict[str, Any], arguments: dict[str, str], path: str) -> None:
    seen = {n: client_of(p, api=path.startswith("/api/")).get(path).content.decode() for n, p in people.items() if p}
    assert [name for name in ("stranger", "owner", "admin") if "private" in seen[name]] == ["owner", "admin"]
    assert "private" not in seen["viewer"]


def test_every_page_is_in_the_table_with_get_and_post() -> None:
    pages = {a for a in patterns(get_resolver()) if not a.startswith(("admin/", *API_ADDRESSES))}
    listed = {(method, address.partition("?")[0]) for method, address, _codes in lines(PAGES)}
    assert listed - {("GET", "join/<invitation>/")} == {
        (method, address or "/") for address in pages for method in ("GET", "POST")
    }


@pytest.mark.medium
def test_every_operation_of_the_api_is_in_the_table() -> None:
    listed = {(m, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", "/" + a.partition("?")[0])) for m, a, _codes in lines(API)}
    schema = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    assert listed - {("GET", "/api/schema"), ("GET", "/api/docs")} == {
        (method.upper(), path) for path, methods in schema.items() for method in methods
    }
    addresses = {a.partition("?")[0] for _m, a, _codes in lines(API)}
    assert addresses == {a for a in patterns(get_resolver()) if a.startswith(API_ADDRESSES)}
