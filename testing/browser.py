"""What browser tests share: a small file to train on, and steps that many of them take."""

import csv
import random
import re
import shutil
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright, StorageState, expect

from testing.site import PASSWORD

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
expect.set_options(timeout=30_000)  # ms; no test is about how fast a page is, and CI is busy
RUN_TABS = ("overview", "errors", "labels", "log", "config", "files", "access")


def launch(play: Playwright) -> Browser:
    return play.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)


def moods(path: Path, rows: int = 240) -> Path:
    """Write a small file with two labels that a model can learn."""
    rng = random.Random(3)
    words = {"good": ["lovely", "warm", "bright", "kind", "happy"], "bad": ["awful", "cold", "grim", "rude", "broken"]}
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["comment", "mood"])
        for i in range(rows):
            label = "good" if i % 2 else "bad"
            out.writerow([f"day {i}: the soup was {rng.choice(words[label])} and {rng.choice(words[label])}", label])
    return path


def upload(page: Page, file: Path) -> None:
    page.goto("/datasets/new/")
    page.locator("input[type=file]").set_input_files(file)
    page.locator("main form button").first.click()
    expect(page.get_by_text("day 0: the soup")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page).to_have_url(re.compile("/datasets/moods/$"))


def end_session(page: Page) -> None:
    """End it as time does: its cookie goes, and that of the forms stays."""
    page.context.clear_cookies(name=re.compile(r"^lorasite_\d+$"))


def sign_in(page: Page) -> None:
    """Fill in the sign-in page, which is open."""
    page.get_by_label("Username").fill("root")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def session_of(chromium: Browser, address: str) -> StorageState:
    """Sign in, and return the cookies with which further pages are signed in."""
    page = chromium.new_page(base_url=address, locale="en")
    page.goto("/login/")
    sign_in(page)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.wait_for_url(f"{address}/")
    cookies = page.context.storage_state()
    page.close()
    return cookies


def watch_layout(page: Page) -> None:
    """Add up the layout shifts of each page that opens from now on, as the browser reports them, and keep what moved, by how much."""
    page.add_init_script(
        """window.shifted = 0; window.shifts = [];
        const place = ({ node, previousRect, currentRect }) => [node?.id || node?.nodeName, previousRect.y, currentRect.y];
        const note = (entry) => { shifted += entry.value; shifts.push([entry.value, entry.sources.map(place)]); };
        new PerformanceObserver((list) => list.getEntries().filter((entry) => !entry.hadRecentInput).forEach(note))
          .observe({ type: "layout-shift", buffered: true });"""
    )


def start_run(page: Page, name: str, epochs: int) -> None:
    page.goto("/train/?dataset=moods@1&preset=quick")
    page.get_by_label("Experiment").fill(name)
    page.get_by_label("Epochs").fill(str(epochs))
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/runs/**")


def wait_until(page: Page, script: str, argument: object = "") -> None:
    """Wait until a script is true. `wait_for_function` evaluates text in the page, which its policy forbids."""
    end = time.monotonic() + 60
    while not page.evaluate(script, argument):
        assert time.monotonic() < end, script
        page.wait_for_timeout(50)
