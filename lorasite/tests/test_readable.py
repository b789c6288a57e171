"""Every page in Chromium: axe reports nothing, and nothing needs sideways scrolling, whatever the theme, language and width."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from testing.browser import RUN_TABS, launch, sign_in
from testing.site import running_web

pytestmark = pytest.mark.browser

# A person's things, as rows: a checked dataset with two versions, suspects and a draft, runs in each state, a model with an alias;
# conversations and preferences, a language model with its run and an export; an upload that waits for its preview.
DATA = """
import json
from pathlib import Path
from tempfile import mkdtemp
import samples
from django.core.files.uploadedfile import SimpleUploadedFile
from accounts.models import User
from accounts.services import invite, make_token
from datasets_app.models import DataTask
from datasets_app.reading.uploads import keep_upload
from datasets_app.services import create_version
from datasets_app.versions import changes
from experiments.models import Alias, ModelExport
from testing.belongings import belongings
from testing.experiments import LANGUAGE_MODEL, METRICS, did_not_learn, row
from testing.belongings import registered
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
for name, rows in (("orders", samples.orders()), ("answers", samples.order_preferences())):
    file = Path(mkdtemp()) / f"{name}.jsonl"
    rows.head(60).write_ndjson(file)
    long = file.read_text().splitlines()[0].replace(" takes ", " takes " + "some " * 1500, 1) if name == "orders" else ""
    file.write_text(file.read_text() + long)
    create_version(user=root, name=name, file=file, filename=file.name)
for name in ("chat", "chat-2"):
    row(root, name, metrics=LANGUAGE_MODEL, task_type="causal_lm", score=0.97, config={"task": "causal_lm"})
Task.objects.filter(experiment__task_type="causal_lm").update(status=Status.SUCCESS)
writer = registered(root, "writer")
writer.latest.task_type, writer.latest.metrics, writer.latest.labels = "causal_lm", LANGUAGE_MODEL, []
writer.task_type = "causal_lm"
writer.save()
writer.latest.save()
figures = {"texts": 100, "equal_answers": 0.99, "largest_change": 0.02, "mean_change": 0.001, "compared_on": "orders@1"}
export = {"version": writer.latest, "author": root}
ModelExport.objects.create(format="gguf-q8_0", status=Status.SUCCESS, stage="done", size=10**8, result=figures, **export)
refused = {"code": "export_failed", "message": "This can't be exported.", "kept": "Nothing was stored.", "next": "Choose another format."}
ModelExport.objects.create(format="peft", status=Status.FAILURE, error=refused, **export)
upload = keep_upload(user=root, files=[SimpleUploadedFile("answers.jsonl", file.read_bytes())])
invite(user=root, role=Role.VIEWER)
make_token(user=root, name="script", scopes=["read"], days=1)
places = {"task": mine.data_task.pk, "upload": upload.token}
for place, name in {"done": "done", "failed": "failed", "unlearned": "x" * 80, "chat": "chat"}.items():
    places[place] = Task.objects.get(experiment__name=name).pk
print(json.dumps({place: str(value) for place, value in places.items()}))
"""
PAGES = [
    "/", "/find/?q=moods", "/nowhere/", "/account/", "/account/notifications/", "/notifications/", "/account/tokens/", "/account/sessions/",
    "/account/password/", "/account/second-factor/", "/people/", "/people/mei/", "/audit/", "/system/",
    "/datasets/", "/datasets/new/", "/datasets/moods/", "/datasets/moods/?version=1&tab=findings", "/datasets/moods/rows/?edit=1",
    "/datasets/moods/?tab=versions", "/datasets/orders/?tab=access",
    "/datasets/moods/compare/", "/datasets/moods/draft/?version=1", "/datasets/moods/noise/?version=1",
    "/datasets/moods/fix/?version=1&codes=markup&codes=exact_duplicate", "/datasets/tasks/{task}/",
    "/datasets/new/{upload}/", "/datasets/orders/", "/datasets/orders/rows/?edit=1", "/datasets/answers/", "/datasets/answers/rows/?edit=1",
    "/train/", "/train/?dataset=orders@1", "/experiments/",
    "/experiments/compare?name=chat&name=chat-2", "/experiments/compare?name=done&name=failed",
    "/models/", "/models/mine/", "/models/writer/", "/models/register/?experiment=done", "/predict/?model=mine", "/chat/",
    *(f"/runs/{{done}}/?tab={tab}" for tab in RUN_TABS), "/runs/{failed}/", "/runs/{unlearned}/",
    "/runs/{chat}/", "/runs/{chat}/?tab=answers",
    "POST /sharing/dataset/moods/?access=owner&to=person:mei", "POST /bulk/runs/?action=share&name=done&name=failed",
]  # fmt: skip
WIDE: ViewportSize = {"width": 1440, "height": 800}
PHONE: ViewportSize = {"width": 320, "height": 800}
CONTRAST = {
    "runOnly": ["color-contrast", "link-in-text-block"],
    "resultTypes": ["violations"],
}  # what a theme can change
ALL_BUT_CONTRAST = {"rules": {name: {"enabled": False} for name in CONTRAST["runOnly"]}, "resultTypes": ["violations"]}
SEND = """([address, fields]) => {
  const form = Object.assign(document.createElement("form"), { method: "post", action: address });
  const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
  for (const [name, value] of [["csrfmiddlewaretoken", token], ...fields]) {
    form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
  }
  document.body.append(form);
  form.submit();
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The address of a site, and the paths of its pages."""
    with running_web(tmp_path_factory.mktemp("site"), more=DATA) as (address, output):
        places: dict[str, str] = json.loads(output)
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
        status = open_page(page, path)
        if status != (404 if path == "/nowhere/" else 200):
            problems.append(f"{path}: status {status}")
        if page.locator("html").get_attribute("lang") != language:
            problems.append(f"{path}: not in {language}")
        page.evaluate(Axe().axe_script)
        problems += [f"{path}: {problem}" for problem in problems_of(page, checks_colours=language == "en")]
    assert not problems, "\n".join(problems)


def open_page(page: Page, path: str) -> int:
    """Open an address; after POST, send its query as a form does, from the page that is open. Return the status."""
    if not path.startswith("POST "):
        response = page.goto(path)
    else:
        address = urlsplit(path.removeprefix("POST "))
        with page.expect_navigation() as navigation:
            page.evaluate(SEND, [address.path, parse_qsl(address.query)])
        response = navigation.value
    return response.status if response else 0


def problems_of(page: Page, *, checks_colours: bool) -> list[str]:
    """Return what axe finds on a page, wide and light, small and dark, and whether it is wider than the phone.

    checks_colours: in both themes of each width. They are the same in all languages, and take axe most of its time.
    """
    options = None if checks_colours else ALL_BUT_CONTRAST
    broken_rules = {*violations(page, options)}
    page.emulate_media(color_scheme="dark")
    if checks_colours:
        broken_rules |= {*violations(page, CONTRAST)}
    page.set_viewport_size(PHONE)
    page.evaluate(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )  # tables fit themselves
    width = page.evaluate("document.documentElement.scrollWidth")
    broken_rules |= {*violations(page, options)}
    page.emulate_media(color_scheme="light")
    if checks_colours:
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
    page.get_by_role("link", name="Versions").click()
    page.get_by_role("link", name="compare with 1").first.click()
    expect(page.get_by_role("heading", name="Label changed")).to_be_visible()
    expect(page.get_by_text("1 row from “bad” to “good”")).to_be_visible()
