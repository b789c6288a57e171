"""What people do in one sitting, in Chromium, from page to page: those journeys of the review that other browser tests do not make."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from testing.browser import moods, start_run
from testing.site import PASSWORD

pytestmark = pytest.mark.browser

TRAINED = 180_000  # milliseconds


def test_run_is_cancelled_resumed_and_trained_again_beside_the_first(page: Page, run: str) -> None:
    start_run(page, "stopped", epochs=60)
    page.goto(page.url.partition("?")[0])
    expect(page.locator("#progress")).to_contain_text("Training loss", timeout=TRAINED)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Resume from the last checkpoint").click(timeout=TRAINED)
    page.get_by_role("button", name="Cancel").click(timeout=TRAINED)
    page.get_by_role("link", name="Train again with changes").click(timeout=TRAINED)
    expect(page.get_by_label("Epochs")).to_have_value("60")
    page.get_by_label("Experiment").fill("diverges")
    page.get_by_label("Epochs").fill("4")
    page.get_by_label("Learning rate").first.fill("0.5")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/runs/**")
    remedy = page.locator("#run-first-action a")
    expect(remedy).to_contain_text("learning rate", timeout=TRAINED)  # it did not learn, and says what to change
    remedy.click()
    expect(page.get_by_label("Learning rate").first).not_to_have_value("0.5")

    page.goto("/experiments/")
    for name in ("by-hand", "diverges"):
        page.get_by_label(f"Select {name}").check()
    page.get_by_role("button", name="Compare selected").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Compare")
    expect(page.locator("main")).to_contain_text("learning_rate")


def test_two_versions_of_a_model_are_shared_renamed_and_asked_beside_each_other(page: Page, run: str) -> None:
    page.goto(run)
    expect(page.get_by_role("link", name="Try the model")).to_be_visible(timeout=TRAINED)
    for version in (1, 2):
        page.goto("/models/register/?experiment=by-hand" + ("&target=moods-model" if version == 2 else ""))
        if version == 1:
            page.get_by_label("Name").fill("moods-model")
        page.get_by_label("What is new in this version").fill(f"number {version}")
        page.get_by_role("button", name="Register the model").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("moods-model")
    page.get_by_label("Alias for version 2").fill("champion")
    page.get_by_role("button", name="Set the alias").click()
    expect(page.get_by_role("row", name=re.compile("number 2"))).to_contain_text("@champion")
    page.get_by_text("Share or transfer").click()
    page.get_by_label("With whom").select_option("everyone")
    page.get_by_role("button", name="Share for viewing").click()
    expect(page.locator("#sharing")).to_contain_text("everyone")

    page.goto("/predict/?model=moods-model@champion")
    page.get_by_label("Text", exact=True).fill("the room was lovely and kind")
    page.get_by_label("Compare with").select_option("by-hand")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#result article")).to_have_count(2, timeout=60_000)


def test_invited_person_sees_what_is_shared_and_an_administrator_what_they_did(
    page: Page, run: str, chromium: Browser, address: str
) -> None:
    page.goto("/people/")
    page.locator("#id_role").select_option("viewer")
    page.get_by_role("button", name="Create invite links").click()
    link = page.locator("#link-1").inner_text()

    guest = chromium.new_page(base_url=address, locale="en")
    guest.goto(link)
    guest.get_by_label("Username").fill("mei")
    for field in guest.get_by_label("Password").all():
        field.fill(PASSWORD)
    guest.get_by_role("button", name="Create account").click()
    guest.goto("/experiments/")
    expect(guest.get_by_role("link", name="by-hand")).to_have_count(0)
    expect(guest.get_by_role("link", name="Train", exact=True)).to_have_count(0)
    assert guest.goto(run).status == 404  # type: ignore[union-attr]

    page.goto(f"{run}?tab=access")
    page.get_by_text("Share or transfer").click()
    page.get_by_label("With whom").select_option("person:mei")
    page.get_by_role("button", name="Share for viewing").click()
    guest.goto("/experiments/")
    guest.get_by_role("link", name="by-hand").click()
    expect(guest.get_by_role("heading", level=1)).to_contain_text("by-hand")
    expect(guest.get_by_role("button", name="Cancel")).to_have_count(0)

    page.goto("/people/mei/")
    page.get_by_label(re.compile("storage", re.IGNORECASE)).fill("100")
    page.get_by_role("button", name="Save limits").click()
    page.get_by_role("link", name="Audit log of this person").click()
    expect(page.locator("main table")).to_contain_text("mei")
    page.goto("/system/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("System")
    page.goto("/people/mei/")
    page.get_by_role("button", name="Close account").click()
    guest.reload()
    expect(guest.get_by_role("button", name="Sign in")).to_be_visible()


def test_dirty_file_is_mended_in_one_version_compared_shared_and_deleted_with_others(
    page: Page, run: str, tmp_path: Path
) -> None:
    file = moods(tmp_path / "dirty.csv", rows=60)
    lines = file.read_text(encoding="utf-8")
    twice = lines.splitlines()[5]
    file.write_text(f"{lines}{twice}\n<p>a <b>kind</b> person was here</p>,good\n", encoding="utf-8")
    page.goto("/datasets/new/")
    page.locator("input[type=file]").set_input_files(file)
    page.locator("main form button").first.click()
    page.get_by_role("button", name="Save").click()
    expect(page).to_have_url(re.compile("/datasets/dirty/$"))
    page.goto("/datasets/dirty/?version=1#findings-title")  # an address of a release without tabs
    expect(page).to_have_url(re.compile("tab=findings$"))
    for code in ("exact_duplicate", "markup"):
        page.locator(f"input[name=codes][value={code}]").check()
    page.get_by_role("button", name="Preview the selected fixes").click()
    expect(page.locator("main")).to_contain_text("61 rows would remain")
    page.get_by_role("button", name="Save as a new version").click()
    expect(page).to_have_url(re.compile("/datasets/dirty/"))
    page.goto("/datasets/dirty/compare/?old=1&new=2")
    expect(page.locator("main")).to_contain_text("person was here")

    page.goto("/datasets/")
    for name in ("dirty", "moods"):
        page.get_by_label(f"Select {name}").check()
    page.get_by_role("button", name="Share", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Share 2 items")
    page.get_by_role("button", name="Share for viewing").click()
    expect(page.get_by_text("2 shared.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Shared as before.")).to_be_visible()
    page.get_by_label("Select dirty").check()
    page.get_by_label("Select moods").uncheck()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_label("Select dirty")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("Select dirty")).to_be_visible()
