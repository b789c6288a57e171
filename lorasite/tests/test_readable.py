"""Every page in Chromium: axe reports nothing, and nothing needs sideways scrolling, whatever the theme, language and width."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from testing.browser import RUN_TABS, launch, sign_in
from testing.site import running_web

pytestmark = pytest.mark.browser

# A person's things, as rows: a checked dataset with two versions, suspects and a draft, runs in each state, a model with an alias.
DATA = """
import json
from pathlib import Path
from tempfile import mkdtemp
from accounts.models import User
from accounts.services import invite, make_token
from datasets_app.models import DataTask
from datasets_app.services import create_version
from datasets_app.versions import changes
from experiments.models import Alias
from testing.belongings import belongings
from testing.experiments import METRICS, did_not_learn, row
from testing.browser import moods
from training.models import Status, Task

User.objects.create_user("mei", "mei@example.org", "correct-horse-9-battery").set_role(Role.MEMBER)
file = moods(Path(mkdtemp()) / "moods.csv", 60)
file.write_text(file.read_text() + "<b>bold</b> words,good\\n" + "<b>bold</b> words,good\\nx,rare\\n" + "w" * 300 + ",bad\\n")
version = create_version(user=root, name="moods", file=file, filename="moods.csv")
changes.make_version(user=root, version=version, change={"did": "fix", "codes": ["markup", "rare_label"]})
for rank, (label, predicted) in enumerate((("bad", "good"), ("good", "bad")), 1):
    version.suspects.create(
        rank=rank, row=rank, text=f"suspect {rank}", label=label, predicted=predicted, given_probability=0.2, predicted_probability=0.8
    )
DataTask.objects.create(owner=root, kind="noise", name="moods", version=version, status=Status.SUCCESS, result={})
version.draft_edits.create(author=root, row=1, text="day 1: the soup was cold", label="bad")
mine = belongings(root, "mine")
mine.model.latest.metrics = METRICS
mine.model.latest.save()
Alias.objects.create(model=mine.model, name="champion", version=mine.model.latest)
done = row(root, "done", accuracy=0.8, macro_f1=0.79, version=version, config={"data": {"dataset_name": "moods@1"}})
row(root, "x" * 80, accuracy=0.5, macro_f1=0.3, metrics=did_not_learn("learning_rate_too_high"))
row(root, "failed")
invite(user=root, role=Role.VIEWER)
make_token(user=root, name="script", scopes=["read"], days=1)
ids = {name: str(Task.objects.get(experiment__name=name).pk) for name in ("done", "failed", "x" * 80)}
print(json.dumps({"runs": ids, "task": str(mine.data_task.pk), "person": User.objects.get(username="mei").pk}))
"""
PAGES = [
    "/", "/find/?q=moods", "/nowhere/", "/account/", "/account/notifications/", "/account/tokens/", "/account/sessions/",
    "/account/password/", "/account/second-factor/", "/people/", "/people/mei/", "/audit/", "/system/",
    "/datasets/", "/datasets/new/", "/datasets/moods/", "/datasets/moods/?version=1", "/datasets/moods/rows/?edit=1",
    "/datasets/moods/compare/", "/datasets/moods/draft/?version=1", "/datasets/moods/noise/?version=1",
    "/datasets/moods/fix/?version=1&codes=markup&codes=exact_duplicate", "/datasets/tasks/{task}/",
    "/train/", "/experiments/", "/experiments/compare?name=done&name=failed",
    "/models/", "/models/mine/", "/models/register/?experiment=done", "/predict/?model=mine", "/chat/",
    *(f"/runs/{{done}}/?tab={tab}" for tab in RUN_TABS), "/runs/{failed}/", "/runs/{unlearned}/",
]  # fmt: skip
WIDE: ViewportSize = {"width": 1440, "height": 800}
PHONE: ViewportSize = {"width": 320, "height": 800}
CONTRAST = {
    "runOnly": ["color-contrast", "link-in-text-block"],
    "resultTypes": ["violations"],
}  # what a theme can change


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The address of a site, and the paths of its pages."""
    with running_web(tmp_path_factory.mktemp("site"), more=DATA) as (address, output):
        ids = json.loads(output)
        runs: dict[str, str] = ids["runs"]
        places = {"task": ids["task"], "done": runs["done"], "failed": runs["failed"], "unlearned": runs["x" * 80]}
        yield address, [path.format(**places) for path in PAGES]


@pytest.fixture(scope="module")
def page(site: tuple[str, list[str]]) -> Iterator[Page]:
    with sync_playwright() as play:
        browser = launch(play)
        page = browser.new_context(base_url=site[0], locale="en").new_page()
        page.goto("/login/")
        sign_in(page)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        yield page
        browser.close()


@pytest.mark.parametrize("language", ["en", "zh-hant"])
def test_page_is_readable_by_all(page: Page, site: tuple[str, list[str]], language: str) -> None:
    address, paths = site
    page.context.add_cookies([{"name": "django_language", "value": language, "url": address}])
    problems = []
    for path in paths:
        page.set_viewport_size(WIDE)
        page.emulate_media(color_scheme="light")
        page.goto(path)
        if page.locator("html").get_attribute("lang") != language:
            problems.append(f"{path}: not in {language}")
        page.evaluate(Axe().axe_script)
        problems += [f"{path}: {problem}" for problem in problems_of(page)]
    assert not problems, "\n".join(problems)


def problems_of(page: Page) -> list[str]:
    """Return what axe finds on a page, wide and on a small phone, light and dark, and whether it is wider than the phone."""
    broken_rules = {*violations(page)}
    page.emulate_media(color_scheme="dark")
    broken_rules |= {*violations(page, CONTRAST)}
    page.set_viewport_size(PHONE)
    page.evaluate(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )  # tables fit themselves
    width = page.evaluate("document.documentElement.scrollWidth")
    broken_rules |= {*violations(page)}
    page.emulate_media(color_scheme="light")
    broken_rules |= {*violations(page, CONTRAST)}
    return sorted(broken_rules) + ([f"{width} pixels wide"] if width > PHONE["width"] else [])


def violations(page: Page, options: dict[str, Any] | None = None) -> list[str]:
    """Return each rule that axe finds broken, with the first places."""
    options = options or {"resultTypes": ["violations"]}
    results = page.evaluate("options => axe.run(options)", options)
    return [f"{rule['id']}: {[node['html'][:200] for node in rule['nodes'][:3]]}" for rule in results["violations"]]


def test_labels_are_reviewed_by_keys_alone_and_the_new_version_is_compared(
    page: Page, site: tuple[str, list[str]]
) -> None:
    page.context.add_cookies([{"name": "django_language", "value": "en", "url": site[0]}])
    page.set_viewport_size(WIDE)
    page.goto("/datasets/moods/noise/?version=1")
    page.keyboard.press("Enter")
    expect(page.locator("#suspect")).to_have_text("suspect 2")
    expect(page.locator("#suspect")).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator("#card")).to_contain_text("2 of 2 reviewed · 1 corrected · 0 removed · 1 kept")
    page.keyboard.press("v")
    expect(page.get_by_text("Corrected the label of 1 row").first).to_be_visible()
    page.get_by_role("link", name="compare with 1").first.click()
    expect(page.get_by_role("heading", name="Label changed")).to_be_visible()
    expect(page.get_by_text("1 row from “bad” to “good”")).to_be_visible()
