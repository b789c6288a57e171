"""The field of the base model in a real Chromium: keyboard, mouse, screen readers, phone, and without JavaScript."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from engine.config_sections import SAMPLE_MODEL
from testing.browser import launch
from testing.site import PASSWORD, running_web

pytestmark = pytest.mark.browser

CHINESE_BERT = "google-bert/bert-base-chinese"
REVIEWS = """
from pathlib import Path
from tempfile import TemporaryDirectory
from samples import reviews_zh
from datasets_app.services import create_version
with TemporaryDirectory() as folder:
    reviews_zh().gather_every(100).write_csv(Path(folder) / "reviews.csv")
    create_version(user=root, name="reviews", file=Path(folder) / "reviews.csv", filename="reviews.csv")
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site with a dataset of Chinese reviews, one folder of a base model, and no model hub."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "bases/team/ours").mkdir(parents=True)
    (folder / "bases/team/ours/config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}')
    environment = {"BASE_MODELS_DIR": str(folder / "bases"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    with running_web(folder, more=REVIEWS, **environment) as (address, _output):
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


def open_form(chromium: Browser, address: str, **options: Any) -> Page:
    """Sign in, and open the form on the Chinese reviews."""
    page = chromium.new_context(base_url=address, **{"locale": "en", **options}).new_page()
    page.goto("/login/")
    page.locator("input[name=username]").fill("root")
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("main form button").first.click()
    page.wait_for_url("**/")
    page.goto("/train/?dataset=reviews@1")
    return page


@pytest.fixture
def page(address: str, chromium: Browser) -> Iterator[Page]:
    """The form; any error in the browser's console fails the test (a broken CSP shows there)."""
    page = open_form(chromium, address)
    complaints: list[str] = []
    page.on("console", lambda entry: complaints.append(entry.text) if entry.type == "error" else None)
    yield page
    page.context.close()
    assert not [complaint for complaint in complaints if "status of 400" not in complaint]  # a form that was sent back


def field_of(page: Page) -> Locator:
    return page.get_by_role("combobox", name="Base model")


def test_keyboard_opens_filters_chooses_and_closes(page: Page) -> None:
    field, options = field_of(page), page.get_by_role("listbox").get_by_role("option")
    expect(field).to_have_value(SAMPLE_MODEL)
    field.focus()
    page.keyboard.press("ArrowDown")
    expect(field).to_have_attribute("aria-expanded", "true")
    first = options.first
    expect(first).to_contain_text(SAMPLE_MODEL)
    expect(first).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", str(first.get_attribute("id")))
    expect(page.get_by_role("group", name="On this machine").get_by_role("option")).to_have_count(3)
    page.keyboard.press("ArrowDown")
    expect(page.locator("[role=option][aria-selected=true]")).to_contain_text("team/ours")
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(field).to_have_value(SAMPLE_MODEL)

    field.fill("chinese bert 102")
    expect(options).to_have_count(2)
    expect(page.locator("#base-model [role=status]")).to_have_text("2 base models")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    with page.expect_response("**/train/*"):  # the snippets and the notice follow the form
        page.keyboard.press("Enter")
    expect(field).to_have_value(CHINESE_BERT)
    expect(field).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#base-model-notice")).not_to_contain_text("in Chinese")


def test_any_name_can_be_typed_and_a_hub_that_is_away_is_said(page: Page) -> None:
    field = field_of(page)
    field.fill("somebody/their-model")
    expect(page.locator("#base-model [role=status]")).to_contain_text("No base model in the list matches")
    expect(page.locator("#base-model-hub")).to_have_text("The model hub can't be reached.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("listbox")).to_be_hidden()
    page.get_by_role("button", name="Start training").click()
    expect(page.locator("[id='id_model.name_error']")).to_contain_text("somebody/their-model")
    expect(field_of(page)).to_have_value("somebody/their-model")


def test_click_on_the_field_opens_the_list(page: Page) -> None:
    field_of(page).click()
    expect(page.get_by_role("listbox")).to_be_visible()
    field_of(page).click()  # to place the cursor
    expect(page.get_by_role("listbox")).to_be_visible()


def test_mouse_opens_and_chooses_and_the_revision_follows(page: Page) -> None:
    page.get_by_role("button", name="Show base models").click()
    page.get_by_role("option", name="microsoft/deberta-v3-base").click()
    expect(field_of(page)).to_have_value("microsoft/deberta-v3-base")
    expect(page.locator("[id='id_model.revision']")).to_have_value("82d8d18a7b88346261ba15d8b1044900a452cf90")
    page.get_by_role("button", name="Show base models").click()
    page.get_by_role("option", name=SAMPLE_MODEL).click()
    expect(page.locator("[id='id_model.revision']")).to_have_value("")
    page.get_by_role("button", name="Show base models").click()
    page.get_by_role("heading", level=1).click()
    expect(page.get_by_role("listbox")).to_be_hidden()


def test_better_base_model_is_filled_in_and_the_notice_goes(page: Page) -> None:
    expect(page.locator("#base-model-notice")).to_contain_text("The data reviews@1 are in Chinese")
    page.get_by_label("Epochs").fill("2")
    page.get_by_role("button", name=f"Use {CHINESE_BERT}").click()
    expect(field_of(page)).to_have_value(CHINESE_BERT)
    expect(page.locator("#base-model-notice")).not_to_contain_text("in Chinese")
    expect(page.get_by_label("Epochs")).to_have_value("2")


def test_enter_in_a_field_starts_the_training_and_presses_no_other_button(page: Page) -> None:
    page.get_by_label("LoRA rank (r)").fill("0")
    page.get_by_label("LoRA rank (r)").press("Enter")
    expect(page.locator("[id='id_lora.r_error']")).to_be_visible()
    expect(field_of(page)).to_have_value(SAMPLE_MODEL)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_open_list_is_readable_by_all_and_fits_a_phone(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    field_of(page).focus()
    page.keyboard.press("ArrowDown")
    violations = Axe().run(page).response["violations"]
    assert not violations, [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in violations]
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_javascript_it_is_a_text_field_with_suggestions(address: str, chromium: Browser) -> None:
    page = open_form(chromium, address, java_script_enabled=False)
    field = page.get_by_label("Base model", exact=True)
    expect(field).to_have_attribute("list", "base-model-names")
    expect(page.get_by_role("button", name="Show base models")).to_be_hidden()
    page.get_by_label("Epochs").fill("2")
    page.get_by_role("button", name=f"Use {CHINESE_BERT}").click()
    expect(field).to_have_value(CHINESE_BERT)
    expect(page.get_by_label("Epochs")).to_have_value("2")
    page.context.close()
