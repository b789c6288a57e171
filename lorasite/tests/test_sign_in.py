"""Sign-in with a real Chromium: single sign-on at a real provider, and second factors, under the site's strict policy."""

import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

from accounts.tests.test_second_factor import code
from accounts.tests.test_single_sign_on import start_provider
from testing.browser import launch
from testing.site import PASSWORD, free_port, running_web

pytestmark = pytest.mark.browser
MORE = """
User.objects.create_user("member", "member@example.org", "correct-horse-9").set_role(Role.MEMBER)
User.objects.create_user("boss", None, "correct-horse-9-battery").set_role(Role.ADMIN)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    provider = start_provider(port)
    facts = {"OIDC_SERVER_URL": f"http://127.0.0.1:{port}", "OIDC_CLIENT_ID": "lorasite", "OIDC_CLIENT_SECRET": "x"}
    facts |= {"OIDC_NAME": "Acme sign-on", "SECOND_FACTOR": "true"}
    with running_web(tmp_path_factory.mktemp("site"), more=MORE, **facts) as (address, _said):
        yield address.replace("127.0.0.1", "localhost")  # a security key knows names only
    provider.terminate()
    provider.wait(10)


@pytest.fixture
def page(site: str) -> Iterator[Page]:
    """A page whose console errors fail the test; violations of the policy appear there."""
    with sync_playwright() as play:
        browser = launch(play)
        page, complaints = browser.new_page(base_url=site, locale="en"), []
        ours = lambda entry: entry.type == "error" and page.url.startswith(site)  # noqa: E731  the provider's page has its own
        page.on("console", lambda entry: complaints.append(entry.text) if ours(entry) else None)
        yield page
        browser.close()
    assert not complaints


def readable(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        violations = Axe().run(page).response["violations"]
        assert not violations, (page.url, [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in violations])


def sign_in(page: Page) -> None:
    page.goto("/login/")
    page.get_by_label("Username").fill("root")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Username")).to_be_visible()


def confirm(page: Page) -> None:
    """Enter the password again if the page asks for it."""
    if "/account/confirm/" in page.url:
        readable(page)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Confirm").click()


def test_single_sign_on_leads_to_the_provider_and_back(page: Page) -> None:
    page.goto("/login/")
    readable(page)
    page.get_by_role("button", name="Acme sign-on").click()
    page.wait_for_url("**/oauth2/authorize**")
    page.locator("button[name=sub][value='7']").click()
    expect(page.get_by_role("link", name="member", exact=True)).to_be_visible()


def test_people_sign_in_with_authenticator_app_and_security_key(page: Page) -> None:
    key = page.context.new_cdp_session(page)
    key.send("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "usb", "hasResidentKey": True, "hasUserVerification": True}
    options |= {"isUserVerified": True, "automaticPresenceSimulation": True}
    key.send("WebAuthn.addVirtualAuthenticator", {"options": options})

    sign_in(page)
    page.get_by_role("link", name="root").click()
    page.get_by_role("link", name="Second factor").click()
    readable(page)
    page.get_by_role("link", name="Activate").click()
    confirm(page)
    readable(page)
    secret = page.locator("#authenticator_secret").input_value()
    expect(page.get_by_role("img")).to_be_visible()
    page.get_by_label("Code").fill(code(secret))
    page.get_by_role("button", name="Activate").click()
    expect(page.get_by_role("heading", name="Recovery Codes")).to_be_visible()
    readable(page)

    page.goto("/account/second-factor/webauthn/add/")
    confirm(page)
    page.get_by_label("Name").fill("key on my desk")
    page.get_by_role("button", name="Add").click()
    page.wait_for_url(re.compile("second-factor/(webauthn|recovery-codes)?/?$"))
    page.goto("/account/second-factor/webauthn/")
    expect(page.get_by_text("key on my desk")).to_be_visible()
    readable(page)

    sign_out(page)
    sign_in(page)
    expect(page.get_by_label("Code")).to_be_visible()
    readable(page)
    page.get_by_role("button", name="Use a security key").click()
    expect(page.get_by_role("link", name="root")).to_be_visible()

    sign_out(page)
    sign_in(page)
    page.get_by_label("Code").fill(code(secret, ahead=1))
    page.get_by_role("button", name="Sign In", exact=True).click()
    expect(page.get_by_role("link", name="root")).to_be_visible()


@pytest.mark.parametrize(
    "path", ["/account/", "/account/tokens/", "/account/sessions/", "/people/", "/people/member/", "/password/forgot/"]
)
def test_page_is_readable_by_all(page: Page, site: str, path: str, request: pytest.FixtureRequest) -> None:
    page.context.add_cookies([{"name": name, "value": value, "url": site} for name, value in cookies(site).items()])
    page.goto(path)
    readable(page)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def cookies(site: str) -> dict[str, str]:
    """Cookies of an administrator's session without a second factor."""
    import http.cookiejar
    import urllib.request

    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    opener.open(f"{site}/login/").read()
    token = next(cookie.value for cookie in jar if "csrf" in cookie.name)
    form = {"username": "boss", "password": PASSWORD, "csrfmiddlewaretoken": token}
    opener.open(urllib.request.Request(f"{site}/login/", urlencode(form).encode(), {"Referer": site})).read()
    return {cookie.name: str(cookie.value) for cookie in jar}
