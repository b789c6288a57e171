"""People with every role and an object of each kind that one of them owns; a complete installation with a real Chromium."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from playwright.sync_api import Browser, Page, Playwright, StorageState, sync_playwright

from accounts.models import Role
from accounts.permissions import grant_access
from accounts.services import invite, make_token
from datasets_app.reading import uploads
from experiments.models import ModelExport, ModelVersion
from testing.belongings import belongings
from testing.browser import launch, moods, session_of, upload
from testing.people import make_user
from testing.site import running_site
from training.models import Status, Task


@pytest.fixture
def people(db: None) -> dict[str, Any]:
    roles = {"viewer": "viewer", "stranger": "member", "reader": "viewer", "owner": "member", "admin": "admin"}
    return {"anonymous": None} | {name: make_user(name, role) for name, role in roles.items()}


@pytest.fixture
def arguments(people: dict[str, Any], tweets_csv: Any) -> dict[str, str]:
    """Values for the placeholders of addresses, such as <name> and <task_id>."""
    owned, waiting = belongings(people["owner"], "private"), belongings(people["owner"], "waiting")
    for shared in (owned, waiting):
        for thing in (shared.dataset, shared.experiment, shared.model):
            grant_access(thing, to=people["reader"])
    Task.objects.filter(pk=waiting.task.pk).update(status=Status.PENDING)
    version = ModelVersion.objects.get(model=owned.model)
    ModelExport.objects.create(version=version, author=people["owner"], format="safetensors")
    upload = SimpleUploadedFile("mine.csv", tweets_csv.read_bytes())
    token = uploads.keep_upload(user=people["owner"], files=[upload]).token
    ids = {
        "task_id": str(owned.task.pk),
        "waiting": str(waiting.task.pk),
        "data_task": str(owned.data_task.pk),
        "rank": "1",
        "alias": "champion",
        "format": "safetensors",
        "export_format": "safetensors",
    }
    api_token, _secret = make_token(user=people["owner"], name="script", scopes=["read"], days=1)
    invitation, link = invite(user=people["admin"], role=Role.VIEWER)
    ids |= {"pk": str(api_token.pk), "open": str(invitation.pk), "invitation": link, "person": str(people["viewer"].pk)}
    spare = {"secret": "ls_inv_none", "uidb64": "MQ", "username": "viewer", "kind": "dataset", "provider_id": "oidc"}
    return {"name": "private", "path": "config.yaml", "token": token, **ids, **spare}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_site(tmp_path_factory.mktemp("site")) as address:
        yield address


@pytest.fixture(scope="module")
def play() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chromium(play: Playwright) -> Iterator[Browser]:
    browser = launch(play)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def session(address: str, chromium: Browser) -> StorageState:
    """The cookies of a signed-in administrator: passwords are made to take a quarter of a second."""
    return session_of(chromium, address)


@pytest.fixture
def page(address: str, chromium: Browser, session: StorageState) -> Iterator[Page]:
    """A signed-in page; any error in the browser's console fails the test (a broken CSP shows there)."""
    context = chromium.new_context(base_url=address, locale="en", storage_state=session)
    page, complaints = context.new_page(), []
    page.on("console", lambda entry: complaints.append(entry.text) if entry.type == "error" else None)
    page.goto("/")
    yield page
    context.close()
    # A form that was sent back, a session that ended, a server that is away.
    expected = re.compile("status of 40[01]|Status Error Code 401|net::ERR_FAILED|htmx:(sendError|afterRequest)")
    assert not [c for c in complaints if not expected.search(c)]


@pytest.fixture(scope="module")
def run(address: str, chromium: Browser, session: StorageState, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a run that was submitted in the browser; its page was closed at once."""
    page = chromium.new_page(base_url=address, locale="en", storage_state=session)
    upload(page, moods(tmp_path_factory.mktemp("file") / "moods.csv"))
    page.get_by_role("link", name="Train on this version").click()
    page.get_by_label("Experiment").fill("by-hand")
    page.get_by_label("Epochs").fill("6")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/runs/**")
    path = page.url.removeprefix(address)
    page.close()
    return path
