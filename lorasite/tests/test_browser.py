"""A complete installation, used with a real Chromium."""

import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, StorageState, expect

from testing.browser import QUIET, RUN_TABS, end_session, moods, sign_in, start_run, wait_until, watch_layout

pytestmark = pytest.mark.browser


def test_run_is_watched_to_its_end_and_its_model_predicts(page: Page, run: str) -> None:
    page.goto(run)
    expect(page.get_by_role("link", name="Try the model")).to_be_visible(timeout=180_000)
    expect(page.locator(".stepper li").last).to_have_attribute("data-state", "done")
    expect(page.locator("#progress")).not_to_have_attribute("hx-trigger", "every 1s")
    expect(page.locator("canvas")).to_have_count(6)
    expect(page.locator("#metrics-says")).to_contain_text("Best accuracy")

    page.get_by_role("link", name="Try the model").click()
    page.get_by_label("Text", exact=True).fill("the room was lovely and kind")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#result h2")).to_contain_text("good", timeout=60_000)


def test_reload_and_another_browser_show_the_same(page: Page, run: str) -> None:
    page.goto(run)
    expect(page.get_by_role("link", name="Try the model")).to_be_visible(timeout=180_000)
    first = page.locator("#progress").inner_text()
    page.reload()
    assert page.locator("#progress").inner_text() == first


def test_chart_is_drawn(page: Page, run: str) -> None:
    page.goto(run)
    expect(page.locator("#loss-box table tbody tr").nth(1)).to_be_attached(timeout=180_000)
    wait_until(page, "window.Chart?.getChart('loss')?.getDatasetMeta(0).data.length > 1")
    pixels = "document.getElementById('loss').getContext('2d').getImageData(0, 0, 300, 150).data.some(v => v)"
    assert page.evaluate(pixels)


def test_preset_changes_its_own_fields_and_keeps_the_page(page: Page, run: str) -> None:
    page.goto("/train/?dataset=moods@1")
    page.get_by_label("Experiment").fill("typed-before")
    preset = page.get_by_role("link", name="Quick try")
    preset.press("Enter")
    expect(page.locator("#changes")).to_contain_text("lora.r: 16 → 8")
    expect(page.get_by_label("Experiment")).to_have_value("typed-before")
    expect(page.get_by_label("LoRA rank (r)")).to_have_value("8")
    expect(preset).to_be_focused()
    expect(preset).to_have_attribute("aria-current", "true")


def test_focus_survives_a_poll_and_the_browser_tells_the_end(page: Page, run: str) -> None:
    page.context.grant_permissions(["notifications"])
    page.goto("/train/?dataset=moods@1&preset=quick")
    page.get_by_label("Epochs").fill("40")
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_role("button", name="Notify me")).to_have_attribute("aria-pressed", "true")
    # Headless Chromium shows no message, so note what would be shown.
    page.evaluate(
        "() => { window.told = []; window.Notification = class extends EventTarget { constructor(title) { super(); told.push(title) } } }"
    )
    cancel = page.get_by_role("button", name="Cancel")
    cancel.focus()
    with page.expect_response("**heard=**"):
        pass
    with page.expect_response("**heard=**"):
        pass
    expect(cancel).to_be_focused()
    cancel.evaluate(
        "({ form }) => fetch(form.action, { method: 'POST', body: new FormData(form) })"
    )  # as in another tab
    expect(page.get_by_role("button", name="Resume from the last checkpoint")).to_be_visible(timeout=120_000)
    wait_until(page, "told.length")  # the message follows the page by a moment
    assert page.evaluate("told") == [page.title()]


def test_toast_stays_until_it_is_dismissed_and_tells_that_the_server_is_away(page: Page, run: str) -> None:
    page.goto(run)
    page.get_by_role("link", name="Try the model").click(timeout=180_000)
    page.get_by_label("Text", exact=True).fill("the room was lovely")
    page.route("**/predict/", lambda route: route.abort())
    page.get_by_role("button", name="Predict").click()
    toast = page.locator(".toast", has_text="The server cannot be reached.")
    expect(toast).to_be_visible()
    expect(page.get_by_role("button", name="Predict")).to_be_focused()
    expect(page.get_by_label("Text", exact=True)).to_have_value("the room was lovely")
    toast.get_by_role("button", name="Dismiss").click()
    expect(toast).to_have_count(0)
    expect(page.locator("main")).to_be_focused()


def test_wrong_value_is_told_beside_its_field(page: Page, run: str) -> None:
    page.goto("/train/?dataset=moods@1")
    rank = page.get_by_label("LoRA rank (r)")
    rank.fill("0")
    with page.expect_response("**/train/*"):
        page.get_by_role("button", name="Start training").click()
    expect(page.locator("[id='id_lora.r_error']")).to_contain_text("greater than or equal to 1")
    page.get_by_label("LoRA rank (r)").fill("8")
    page.get_by_label("Learning rate").first.fill("0.0007")
    page.get_by_label("Learning rate").first.press("Tab")
    page.locator("summary", has_text="Use this from code").click()
    expect(page.locator("#copy-yaml")).to_contain_text("learning_rate: 0.0007")


def test_finished_run_becomes_a_model_that_is_recommended_and_predicts(page: Page, run: str) -> None:
    page.goto(run)
    expect(page.get_by_role("link", name="Try the model")).to_be_visible(timeout=180_000)
    page.goto("/experiments/by-hand/")
    page.get_by_role("link", name="Register as model").click()
    page.get_by_label("Name").fill("moods-en")
    page.get_by_label("What it does, in one line").fill("Tells a good day from a bad one.")
    page.get_by_role("button", name="Register the model").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("moods-en")
    page.goto("/datasets/moods/")
    page.get_by_role("link", name="Find a matching model").click()
    expect(page.locator("#recommended")).to_contain_text("that it was not trained on", timeout=60_000)
    page.get_by_role("link", name="Try it").first.click()
    page.get_by_label("Text", exact=True).fill("the room was lovely and kind")
    page.get_by_label("Compare with").select_option("by-hand")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#result article")).to_have_count(2, timeout=60_000)

    page.reload()
    page.get_by_label("Text", exact=True).fill("")
    asked = page.get_by_role("region", name="Asked in this tab")
    asked.get_by_role("button", name="the room was lovely and kind").click()
    expect(page.get_by_label("Text", exact=True)).to_have_value("the room was lovely and kind")
    expect(page.get_by_label("Text", exact=True)).to_be_focused()
    page.route("**/logout/", lambda route: route.fulfill(status=204))  # other tests share the session
    page.get_by_role("button", name="Sign out").click()
    assert page.evaluate("sessionStorage.length") == 0


def test_page_stays_when_its_session_ends_and_works_again_after_signing_in(page: Page, run: str) -> None:
    page.goto(run)
    page.get_by_role("link", name="Try the model").click(timeout=180_000)
    page.get_by_label("Text", exact=True).fill("the room was lovely")
    end_session(page)
    page.get_by_role("button", name="Predict").click()
    dialog = page.get_by_role("dialog", name="Your session has ended")
    expect(dialog).to_be_visible()
    expect(page.get_by_label("Text", exact=True)).to_have_value("the room was lovely")

    with page.expect_popup() as opened:
        dialog.get_by_role("link", name="Sign in").click()
    sign_in(opened.value)
    expect(opened.value.get_by_role("heading", level=1)).to_be_visible()
    opened.value.close()
    page.bring_to_front()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # headless pages are always visible
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#result article")).to_have_count(1, timeout=60_000)


def test_form_that_was_sent_after_its_session_is_filled_again(page: Page, run: str) -> None:
    page.goto("/train/?dataset=moods@1")
    page.get_by_label("Experiment").fill("not-lost")
    page.get_by_label("Epochs").fill("17")
    end_session(page)
    page.get_by_role("button", name="Start training").click()
    sign_in(page)
    expect(page.get_by_text("What you had entered is here again")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/train/\?dataset=moods@1$"))
    expect(page.get_by_label("Experiment")).to_have_value("not-lost")
    expect(page.get_by_label("Epochs")).to_have_value("17")
    page.reload()
    expect(page.get_by_label("Epochs")).not_to_have_value("17")  # once


def test_times_are_those_of_the_readers_clock(address: str, chromium: Browser, session: StorageState, run: str) -> None:
    context = chromium.new_context(base_url=address, locale="en", timezone_id="Asia/Taipei", storage_state=session)
    page = context.new_page()
    page.goto("/audit/")
    time = page.locator("tbody time").first
    utc = datetime.fromisoformat(str(time.get_attribute("datetime")))
    expect(time).to_have_text(f"{utc.astimezone(ZoneInfo('Asia/Taipei')):%Y-%m-%d %H:%M:%S}")
    expect(time).to_have_attribute("title", re.compile(r"GMT\+8$"))
    page.goto("/experiments/")
    expect(page.locator("tbody time").first).to_have_text(re.compile(r"(second|minute)s? ago$"))
    context.close()


def test_api_docs_open(address: str, chromium: Browser) -> None:
    """The policy refuses a few inline styles of Swagger UI; the documentation is still usable."""
    page = chromium.new_page(base_url=address)
    page.goto("/api/docs")
    expect(page.locator("#swagger-ui")).to_contain_text("/api/train", timeout=30_000)
    page.close()


def test_keys_move_in_a_list_press_what_a_page_has_and_are_listed(page: Page, run: str) -> None:
    page.goto("/experiments/")
    page.keyboard.press("j")
    row = page.locator("tbody tr").first
    expect(row.locator("a.stretched")).to_be_focused()
    page.keyboard.press("x")
    expect(row.get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("x")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("select the row")
    expect(page.locator("[data-keys-page] dd")).to_have_text(["Train a model"])
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/**")  # until its scripts listen
    page.keyboard.press("4")
    expect(page.get_by_role("link", name="Log", exact=True)).to_have_attribute("aria-current", "page")
    page.keyboard.press("?")
    page.get_by_label("Single keys do something").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.keyboard.press("g")
    page.keyboard.press("d")
    expect(page.get_by_role("link", name="Log", exact=True)).to_have_attribute("aria-current", "page")


def test_keyboard_shortcuts_navigate_and_the_theme_is_remembered(page: Page) -> None:
    page.goto("/")
    for letter in ("r", "e"):  # e of earlier releases still works
        page.goto("/")
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_url("**/experiments/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Light or dark").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_first_visit_is_small_and_no_file_is_asked_for_twice(address: str, chromium: Browser, run: str) -> None:
    context = chromium.new_context(base_url=address, locale="en")
    page = context.new_page()
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    responses: dict[str, dict[str, Any]] = {}
    received: dict[str, int] = {}  # bytes; none for what is in the cache
    network.on("Network.responseReceived", lambda event: responses.update({event["requestId"]: event["response"]}))
    network.on(
        "Network.loadingFinished", lambda event: received.update({event["requestId"]: event["encodedDataLength"]})
    )
    page.goto("/login/")
    sign_in(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.wait_for_load_state("networkidle")
    assert 20_000 < sum(received.values()) < 120_000
    page.goto(run)
    wait_until(page, "!!window.Chart?.getChart('loss')")
    static_files = {key: response for key, response in responses.items() if "/static/" in response["url"]}
    assert all("immutable" in response["headers"]["Cache-Control"] for response in static_files.values())
    sent = [response["url"] for key, response in static_files.items() if received.get(key)]
    assert sent and len(sent) == len(set(sent))
    context.close()


def test_menu_of_a_phone_opens_without_scripts(address: str, chromium: Browser, session: StorageState) -> None:
    context = chromium.new_context(
        base_url=address,
        locale="en",
        viewport={"width": 390, "height": 760},
        java_script_enabled=False,
        storage_state=session,
    )
    page = context.new_page()
    page.goto("/")
    bar = page.get_by_role("navigation", name="Most used")
    expect(bar.get_by_role("link")).to_have_count(5)
    expect(bar.get_by_role("link", name="Overview")).to_have_attribute("aria-current", "page")
    expect(page.get_by_role("link", name="System", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="System", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("System status")
    context.close()


def test_wide_table_scrolls_by_keyboard_and_the_head_of_any_other_stays_in_sight(page: Page) -> None:
    page.goto("/system/")
    table = page.locator(".table-scroll").nth(1)
    expect(table).to_have_class(re.compile(r"\bfits\b"))
    expect(table).not_to_have_attribute("tabindex", "0")
    assert page.evaluate("getComputedStyle(document.querySelector('.fits thead')).position") == "sticky"
    page.set_viewport_size({"width": 360, "height": 740})
    expect(table).to_have_attribute("tabindex", "0")


def test_badge_of_running_runs_is_asked_for_by_itself_and_never_opens_the_dialog(page: Page) -> None:
    page.goto("/datasets/")
    end_session(page)
    with page.expect_response("**/running/", timeout=60_000) as answered:
        pass
    assert answered.value.status == 401
    page.evaluate("new Promise(requestAnimationFrame)")
    expect(page.get_by_role("dialog", name="Your session has ended")).to_be_hidden()


def test_back_shows_nothing_after_signing_out(address: str, play: Playwright) -> None:
    tested_off = ["--disable-back-forward-cache"]  # Playwright turns off what people's browsers have
    browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET, ignore_default_args=tested_off)
    page = browser.new_page(base_url=address, locale="en")
    page.goto("/login/")
    sign_in(page)
    page.goto("/experiments/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login/**")
    page.evaluate("history.back()")  # go_back waits for a navigation, which a page out of the cache is not
    expect(page).to_have_url(re.compile("/experiments/"))
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    browser.close()


def test_chinese_is_one_click_away(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="繁體中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-hant")
    expect(page.get_by_role("link", name="資料集")).to_be_visible()


def test_whole_run_moves_nothing_and_leaves_the_selected_log_selected(page: Page, run: str) -> None:
    watch_layout(page)
    page.set_viewport_size({"width": 1440, "height": 900})
    start_run(page, "watched", 8)
    log = page.locator("#log")
    expect(log).to_contain_text("Attempt 1 starts", timeout=180_000)
    length = page.evaluate("getSelection().selectAllChildren(document.getElementById('log')), log.textContent.length")
    selected = page.evaluate("getSelection().toString()")
    wait_until(page, "length => document.getElementById('log').textContent.length > length", length)
    assert selected and page.evaluate("getSelection().toString()").startswith(selected.strip())

    expect(page.get_by_role("link", name="Try the model")).to_be_visible(timeout=180_000)
    expect(page.locator("#run-status")).to_have_text("Done")
    expect(page).to_have_title("watched: done · Lorasite")
    expect(log).to_contain_text("Done.")
    assert page.locator("#progress").get_attribute("hx-get") is None
    assert page.evaluate("shifted") < 0.02, page.evaluate("shifts")


def test_tabs_are_links_that_are_kept_on_reload_and_work_without_scripts(
    page: Page, run: str, address: str, chromium: Browser
) -> None:
    page.goto(run)
    expect(page.get_by_role("link", name="Try the model")).to_be_visible(timeout=180_000)
    tab = page.get_by_role("link", name="Errors")
    tab.press("Enter")
    expect(page.get_by_role("heading", name="Confusion matrix")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/\?tab=errors$"))
    expect(tab).to_be_focused()
    expect(tab).to_have_attribute("aria-current", "page")
    page.reload()
    expect(page.get_by_role("heading", name="Confusion matrix")).to_be_visible()

    plain = chromium.new_context(base_url=address, locale="en", java_script_enabled=False)
    plain.add_cookies(page.context.cookies())  # type: ignore[arg-type]  # what it returns is what it takes
    simple = plain.new_page()
    simple.goto(run)
    for name, heading in {
        "Per label": "",
        "Configuration": "Changed from the defaults",
        "Files": "Checkpoints kept",
    }.items():
        simple.get_by_role("link", name=name, exact=True).click()
        expect(simple.get_by_role("link", name=name, exact=True)).to_have_attribute("aria-current", "page")
        if heading:
            expect(simple.get_by_role("heading", name=heading)).to_be_visible()
    plain.close()


def test_hidden_tab_does_not_poll_and_goes_on_when_it_is_seen_again(page: Page, run: str) -> None:
    start_run(page, "hidden", 40)
    page.evaluate(
        """Object.defineProperty(document, "hidden", { get: () => !window.isSeen, configurable: true });
        window.stopped = 0;
        document.addEventListener("htmx:beforeRequest", (event) => { if (event.defaultPrevented) stopped += 1; });"""
    )
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "heard=" in request.url else None)
    wait_until(page, "() => stopped >= 2")
    assert len(sent) <= 1  # one may have been on its way
    with page.expect_response("**heard=**"):
        page.evaluate("window.isSeen = true")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#run-status")).to_have_text("Cancelled", timeout=120_000)


def test_run_with_the_longest_name_needs_no_sideways_scrolling_on_a_small_phone(page: Page, run: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    start_run(page, "x" * 80, 40)
    page.get_by_role("button", name="Cancel").click()
    first = page.get_by_role("button", name="Resume from the last checkpoint")
    expect(first).to_be_visible(timeout=120_000)
    path = page.url.partition("?")[0]
    for tab in RUN_TABS:
        page.goto(f"{path}?tab={tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, tab
        expect(first).to_be_in_viewport()  # it stays at the bottom of the screen


def test_palette_finds_and_opens_a_page_by_keys_alone(page: Page, run: str) -> None:
    page.goto("/system/")
    page.keyboard.press("Control+k")
    palette = page.get_by_role("dialog", name="Search")
    expect(palette.get_by_role("option", name="Overview")).to_have_attribute("aria-selected", "true")
    assert not Axe().run(page).response["violations"]
    page.keyboard.type("by-ha")
    expect(palette.get_by_role("option")).to_have_text(["by-hand"])
    page.keyboard.press("Escape")
    expect(palette).to_be_hidden()
    page.get_by_role("link", name="Search").click()
    page.keyboard.type("o")
    expect(palette.get_by_role("option").nth(1)).to_be_visible()
    page.keyboard.press("ArrowDown")
    second = palette.get_by_role("option").nth(1)
    expect(second).to_have_attribute("aria-selected", "true")
    leads_to = second.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{leads_to}")


def test_file_with_a_chinese_name_becomes_a_dataset_and_a_run_of_that_name(page: Page, tmp_path: Path) -> None:
    page.goto("/datasets/new/")
    page.locator("input[type=file]").set_input_files(moods(tmp_path / "客服工單 2026.csv"))
    page.locator("main form button").first.click()
    name = page.get_by_label("Name")
    expect(name).to_have_value("客服工單-2026")
    name.fill("客服\u202e工單")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("U+202E RIGHT-TO-LEFT OVERRIDE")).to_be_visible()
    name.fill("客服工單")
    page.get_by_role("button", name="Save").click()
    expect(page).to_have_url(re.compile("/datasets/%E5%AE%A2%E6%9C%8D%E5%B7%A5%E5%96%AE/$"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("客服工單")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").first.click()
    assert download.value.suggested_filename == "客服工單-1.csv"
    page.get_by_role("link", name="Train on this version").click()
    page.get_by_label("Experiment").fill("客服分類")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/runs/**")
    page.goto("/experiments/?q=客服分")
    page.get_by_role("link", name="客服分類").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("客服分類")


def test_list_keeps_focus_while_one_searches_and_ticks_while_one_sorts(page: Page, run: str) -> None:
    page.goto("/experiments/")
    expect(page.get_by_role("button", name="Compare selected")).to_be_disabled()
    page.get_by_label("Select by-hand").check()
    page.keyboard.press("/")
    page.keyboard.type("by-h")
    expect(page).to_have_url(re.compile(r"/experiments/\?q=by-h$"))
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.get_by_role("link", name="Score").click()
    expect(page).to_have_url(re.compile(r"sort=-score"))
    expect(page.get_by_label("Select by-hand")).to_be_checked()
    expect(page.get_by_role("button", name="Export as CSV")).to_be_enabled()
    page.locator("tbody tr td").last.click(force=True)  # anywhere in the row: its link lies over the cell
    expect(page).to_have_url(re.compile("/runs/"))


def test_pictures_of_the_docs_are_taken(page: Page, run: str, tmp_path: Path) -> None:
    """`PICTURES=docs/images` keeps them, see CONTRIBUTING.md."""
    folder = Path(os.environ.get("PICTURES") or tmp_path)
    page.set_viewport_size({"width": 1280, "height": 1000})
    for name, address in {"data": "/datasets/moods/", "run": run}.items():
        page.goto(address)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if name == "run":
            expect(page.get_by_role("link", name="Try the model")).to_be_visible(timeout=180_000)
            page.mouse.move(0, 0)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"{name}.png", animations="disabled")
        assert (folder / f"{name}.png").stat().st_size > 10_000
