"""Charts in a real Chromium: zoom, smoothing, crosshair, axes, downloads, and what survives a poll."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from playwright.sync_api import Browser, Locator, Page, StorageState, expect, sync_playwright

from testing.browser import launch, session_of, wait_until
from testing.site import database_of, running_web

pytestmark = pytest.mark.browser

LONG = 20_000  # points of the long run

# Runs without a worker: "live" stays in progress, "waiting" has no point yet, "long" has a spike at one of its steps.
RUNS = """
from math import exp, sin
from experiments.models import Experiment
from testing.experiments import METRICS
from training.models import Point, Status, Task

LONG = 20_000

def loss_at(step):
    return 0.2 + exp(-step / 60) + 0.05 * sin(step)

def make_run(name, status, steps, every, eval_every, speed=2.0):
    evaluations = {s: min(0.93, 0.3 + s / steps) for s in range(eval_every, steps + 1, eval_every)}
    history = []
    for s in range(every, steps + 1, every):
        place = {"step": s, "epoch": 3 * s / steps, "tokens": 400 * s, "runtime_s": s / speed}
        history.append(place | {"loss": loss_at(s), "learning_rate": 5e-4 * (1 - s / steps), "grad_norm": 1 + sin(s)})
        if s in evaluations:
            history.append(place | {"eval_loss": loss_at(s) + 0.1, "eval_accuracy": evaluations[s], "eval_macro_f1": evaluations[s] - 0.05})
    ended = status == Status.SUCCESS
    metrics = METRICS | {
        "history": history,
        "checkpoints": {"best": {"step": eval_every, "metric": 0.9, "path": "artifacts/checkpoints/checkpoint-20"}},
    }
    experiment = Experiment.objects.create(
        name=name, owner=root, dataset_name="d@1", base_model="b", metrics=metrics if ended else {},
        config={"training": {"eval_strategy": "steps", "eval_steps": eval_every}},
        **({"accuracy": 0.9, "score": 0.9, "macro_f1": 0.85, "eval_loss": 0.3} if ended else {}),
    )
    task = Task.objects.create(
        owner=root, experiment=experiment, status=status, stage="done" if ended else "training",
        total_steps=steps, step=steps if ended else steps // 2,
    )
    points = {}
    for entry in history if steps > every else []:
        measured = {"loss": entry.get("loss"), "learning_rate": entry.get("learning_rate"), "grad_norm": entry.get("grad_norm")}
        if "eval_loss" in entry:
            measured = {"eval_loss": entry["eval_loss"], "accuracy": entry["eval_accuracy"], "macro_f1": entry["eval_macro_f1"]}
        place = {name: entry[name] for name in ("step", "epoch", "tokens", "runtime_s")}
        point = points.setdefault(entry["step"], Point(task=task, **place, tokens_per_second=900.0, cpu_percent=90.0, memory_mb=884.0))
        for field, value in measured.items():
            setattr(point, field, value)
    if name == "long":
        points[12_345].loss = 9.0
    Point.objects.bulk_create(points.values(), batch_size=1000)
    return task

print(make_run("live", Status.STARTED, 51, 1, 17).pk)
print(make_run("waiting", Status.STARTED, 5, 5, 4).pk)
print(make_run("done", Status.SUCCESS, 60, 1, 20).pk)
print(make_run("done-slower", Status.SUCCESS, 120, 2, 40, speed=1.0).pk)
print(make_run("long", Status.SUCCESS, LONG, 1, 4000).pk)
"""
ADD_POINT = """
import django; django.setup()
from training.models import Point, Task
task = Task.objects.get(experiment__name="live")
Point.objects.create(task=task, step=52, epoch=3.1, loss=0.05, tokens=20_800, runtime_s=26.0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a site, and the paths of its runs by name."""
    with running_web(folder, more=RUNS) as (address, output):
        names = ("live", "waiting", "done", "done-slower", "long")
        yield address, {name: f"/runs/{pk}/" for name, pk in zip(names, output.split(), strict=True)}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def session(site: tuple[str, dict[str, str]], chromium: Browser) -> StorageState:
    return session_of(chromium, site[0])


@pytest.fixture
def page(site: tuple[str, dict[str, str]], chromium: Browser, session: StorageState) -> Iterator[Page]:
    """A signed-in page; any error in the browser's console fails the test (a broken CSP shows there)."""
    yield from open_page(chromium, site[0], storage_state=session)


def open_page(chromium: Browser, address: str, **options: Any) -> Iterator[Page]:
    context = chromium.new_context(base_url=address, viewport={"width": 1440, "height": 1000}, locale="en", **options)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda entry: errors.append(entry.text) if entry.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/")
    yield page
    context.close()
    assert not errors


def chart_of(page: Page, key: str = "loss") -> Locator:
    return page.locator(f"figure:has(> .canvas > #{key})")


def open_run(page: Page, site: tuple[str, dict[str, str]], name: str, key: str = "loss") -> None:
    page.goto(site[1][name])
    wait_until(page, "key => window.Chart?.getChart(key)?.getDatasetMeta(0).data.length > 1", key)


def shown(page: Page, key: str = "loss") -> tuple[float, float]:
    """Return the ends of a chart's horizontal axis."""
    low, high = page.evaluate("key => [Chart.getChart(key).scales.x.min, Chart.getChart(key).scales.x.max]", key)
    return low, high


def spoken(page: Page) -> str:
    """Return what a screen reader is told of the chart of the loss, once the next frame is drawn."""
    page.evaluate("() => new Promise(resolve => requestAnimationFrame(resolve))")
    return str(page.get_by_role("slider", name="Loss").get_attribute("aria-valuetext"))


def drag(page: Page, start: float, end: float, key: str = "loss") -> None:
    """Drag the mouse over a chart, from one share of its width to another."""
    canvas = page.locator(f"#{key}")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + (start + end) / 2 * box["width"], middle)
    page.mouse.move(box["x"] + end * box["width"], middle)
    page.mouse.up()


def wait_for_polls(page: Page, number: int = 2) -> None:
    for _each in range(number):
        with page.expect_response("**heard=**"):
            pass
    page.wait_for_timeout(100)  # the answer is put into the page


def test_axis_is_linear_and_lines_are_straight(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "live")
    pixels = page.evaluate(
        "Chart.getChart('loss').getDatasetMeta(0).data.map((p, i, all) => p.x - (all[i - 1]?.x ?? p.x))"
    )
    gaps = pixels[1:]
    assert max(gaps) - min(gaps) < 0.5  # every step is as wide as the other
    evaluations = page.evaluate("Chart.getChart('loss').data.datasets[1]")
    assert [point["x"] for point in evaluations["data"]] == [17, 34, 51] and evaluations["showLine"] is False
    assert page.evaluate("Chart.getChart('loss').data.datasets.every(series => !series.tension)")
    assert page.evaluate("Chart.getChart('metrics').scales.x.min") == 1  # all charts of the page begin at one place


def test_drag_zooms_all_charts_and_a_button_shows_everything(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "done")
    reset = page.get_by_role("button", name="Reset zoom")
    expect(reset).to_be_disabled()
    drag(page, 0.4, 0.7)
    low, high = shown(page)
    assert 15 < low < 30 and 35 < high < 50
    assert shown(page, "metrics") == (low, high)
    page.reload()
    wait_until(page, "window.Chart?.getChart('loss')")
    assert shown(page) == (low, high)
    reset.click()
    assert shown(page) == (1, 60)


def test_wheel_needs_a_key_to_zoom_and_shift_pans(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "done")
    page.locator("#loss").hover()
    page.mouse.wheel(0, -50)
    assert shown(page) == (1, 60)
    page.locator("#loss").hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    wait_until(page, "window.Chart?.getChart('loss').scales.x.max < 60")
    low, high = shown(page)
    page.keyboard.down("Shift")
    drag(page, 0.5, 0.4)
    page.keyboard.up("Shift")
    assert shown(page)[0] > low and shown(page)[1] > high


def test_keys_move_the_crosshair_zoom_and_show_everything(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "done")
    slider = page.get_by_role("slider", name="Loss")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "step 2: training loss 1.2127, evaluation loss 1.0622")
    page.keyboard.press("End")
    expect(slider).to_have_attribute("aria-valuenow", "60")
    page.keyboard.press("Home")
    page.keyboard.press("+")
    assert shown(page)[1] < 60
    page.keyboard.press("Shift+ArrowRight")
    assert shown(page)[0] > 1
    page.keyboard.press("0")
    assert shown(page) == (1, 60)


def test_crosshair_stands_in_all_charts_and_the_legend_reads_it(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "done")
    value = chart_of(page).locator(".chart-value").first
    last = value.inner_text()
    rate = chart_of(page, "metrics").locator(".chart-value").first
    box = page.locator("#loss").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 100)
    expect(value).not_to_have_text(last)
    expect(rate).to_have_text("0.63333")  # of the evaluation at step 20, in another chart
    page.mouse.move(5, 5)
    expect(value).to_have_text(last)


def test_smoothing_keeps_the_raw_line_faint(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "done")
    slider = page.get_by_label("Smoothing")
    slider.fill("0.9")
    series = page.evaluate(
        """Chart.getChart('loss').data.datasets.map(
            s => ({label: s.label, width: s.borderWidth, colour: s.borderColor, y: s.data.map(p => p.y)}))"""
    )
    smooth, raw = (one for one in series if one["label"] == "training loss")
    assert raw["width"] < smooth["width"] and raw["colour"].startswith(smooth["colour"]) and len(raw["colour"]) == 9

    def roughness(values: list[float]) -> float:
        return sum(abs(values[i] - 2 * values[i + 1] + values[i + 2]) for i in range(len(values) - 2))

    assert roughness(smooth["y"]) < roughness(raw["y"]) / 5
    assert smooth["y"][0] == raw["y"][0]  # not drawn to zero
    page.reload()
    expect(slider).to_have_value("0.9")


def test_scale_is_logarithmic_where_that_is_wanted(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "done")
    switch = chart_of(page).get_by_role("button", name="Log scale")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("[Chart.getChart('loss').scales.y.type, Chart.getChart('metrics').scales.y.type]") == [
        "logarithmic",
        "linear",
    ]
    assert chart_of(page, "metrics").get_by_role("button", name="Log scale").count() == 0


@pytest.mark.parametrize(("axis", "end"), [("epoch", 3), ("seconds", 30), ("tokens", 24_000)])
def test_axis_is_chosen(page: Page, site: tuple[str, dict[str, str]], axis: str, end: float) -> None:
    open_run(page, site, "done")
    page.get_by_label("Horizontal axis").select_option(axis)
    assert shown(page)[1] == end and shown(page, "metrics")[1] == end


def test_baselines_and_the_best_checkpoint_are_drawn_in(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "done")
    legend = chart_of(page, "metrics").locator(".chart-legend")
    expect(legend).to_contain_text("Majority-class baseline 0.5")
    expect(legend).to_contain_text("Linear baseline on words 0.7")
    assert page.evaluate("Chart.getChart('metrics').scales.y.min") <= 0.5  # their lines are within the chart
    assert has_colour(page, "metrics", "best"), "the line of the best checkpoint is missing"


def has_colour(page: Page, key: str, where: str) -> bool:
    """Return whether the column of pixels at the best checkpoint, step 20, has the accent colour in many places."""
    script = """key => {
        const chart = Chart.getChart(key), ratio = chart.currentDevicePixelRatio;
        const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
        const [r, g, b] = [1, 3, 5].map(i => parseInt(accent.slice(i, i + 2), 16));
        const x = Math.round(chart.scales.x.getPixelForValue(20) * ratio), {top, bottom} = chart.chartArea;
        const data = chart.ctx.getImageData(x - 2, top * ratio, 5, (bottom - top) * ratio).data;
        let near = 0;
        for (let i = 0; i < data.length; i += 4) {
            const distance = Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b);
            near += data[i + 3] > 60 && distance < 40;
        }
        return near;
    }"""
    return bool(page.evaluate(script, key) > 40)


def test_series_is_hidden_by_its_key_and_stays_hidden(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "live")
    key = chart_of(page).get_by_role("button", name="evaluation loss")
    key.focus()
    page.keyboard.press("Enter")
    expect(key).to_have_attribute("aria-pressed", "false")
    wait_for_polls(page)
    expect(key).to_be_focused()
    assert page.evaluate("Chart.getChart('loss').isDatasetVisible(1)") is False
    page.reload()
    wait_until(page, "window.Chart?.getChart('loss')")
    assert page.evaluate("Chart.getChart('loss').isDatasetVisible(1)") is False


def test_polls_keep_zoom_focus_table_and_selection_and_bring_new_points(
    page: Page, site: tuple[str, dict[str, str]], folder: Path
) -> None:
    open_run(page, site, "live")
    rows = page.locator("#loss-rows tr")
    chart_of(page).locator("summary").click()
    drag(page, 0.4, 0.7)
    zoomed = shown(page)
    page.get_by_role("slider", name="Loss").focus()
    page.keyboard.press("ArrowLeft")
    said = spoken(page)
    page.evaluate("getSelection().selectAllChildren(document.getElementById('metrics-says'))")
    before = rows.count()
    wait_for_polls(page)
    assert page.evaluate("getSelection().toString()").startswith("Best accuracy")
    code = [sys.executable, "-c", ADD_POINT]
    environment = {
        "DJANGO_SETTINGS_MODULE": "lorasite.settings",
        "DATA_DIR": str(folder / "data"),
        "RESULTS_DIR": str(folder / "results"),
    }
    subprocess.run(code, env=os.environ | environment | database_of(folder), cwd=settings.BASE_DIR, check=True)
    expect(rows.last.locator("td").first).to_have_text("52", timeout=60_000)
    expect(rows.last).to_be_visible()  # the table is still open
    assert rows.count() >= before
    assert shown(page) == zoomed
    expect(page.get_by_role("slider", name="Loss")).to_be_focused()
    expect(page.get_by_role("slider", name="Loss")).to_have_attribute("aria-valuetext", said)
    page.keyboard.press("0")
    assert shown(page)[1] == 52


def test_empty_chart_says_when_its_first_point_comes(page: Page, site: tuple[str, dict[str, str]]) -> None:
    page.goto(site[1]["waiting"])
    expect(chart_of(page, "metrics")).to_contain_text("First point after step 4.")
    expect(page.locator("#metrics-empty")).to_be_visible()
    assert page.evaluate("Chart.getChart('metrics')") is None  # no axes from 0 to 1
    open_run(page, site, "live")
    expect(page.locator("#metrics-empty")).to_be_hidden()


def test_compared_runs_have_a_colour_and_a_dash_each(page: Page, site: tuple[str, dict[str, str]]) -> None:
    page.goto("/experiments/compare?name=done&name=done-slower")
    wait_until(page, "window.Chart?.getChart('metrics')")
    first, second = page.evaluate(
        "Chart.getChart('loss').data.datasets.map(s => [s.label, s.borderColor, s.borderDash.join()])"
    )
    assert (first[0], second[0]) == ("done", "done-slower") and first[1] != second[1] and first[2] != second[2]
    dots = page.locator("thead .run-dot")
    colours = [dot.evaluate("dot => getComputedStyle(dot).backgroundColor") for dot in dots.all()[:2]]
    keys = page.locator("figure").first.locator(".chart-key svg")
    assert colours == [key.evaluate("key => getComputedStyle(key).stroke") for key in keys.all()]
    page.get_by_label("Horizontal axis").select_option("seconds")
    assert shown(page)[1] == 120  # the slower one took 120 s, the other 30 s


def test_long_run_shows_all_its_points_once_zoomed(page: Page, site: tuple[str, dict[str, str]]) -> None:
    open_run(page, site, "long")
    drawn = page.evaluate("JSON.parse(document.getElementById('loss-data').textContent).tracks[0].step.length")
    assert drawn <= 600
    with page.expect_response("**/curves.csv") as answer:
        drag(page, 0.55, 0.75)
    assert answer.value.ok
    wait_until(page, "Math.max(...Chart.getChart('loss').data.datasets[0].data.map(p => p.y)) === 9")  # the spike
    assert page.evaluate("Chart.getChart('loss').data.datasets[0].data.length") < 4000  # decimated
    page.get_by_role("slider", name="Loss").focus()
    steps = []
    for _each in range(2):
        page.keyboard.press("ArrowLeft")
        steps.append(int(spoken(page).split(":")[0].removeprefix("step ").replace(",", "")))
    assert steps[0] - steps[1] == 1


def test_chart_is_downloaded_as_picture_and_table(page: Page, site: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    open_run(page, site, "done")
    with page.expect_download() as picture:
        page.get_by_role("button", name="Download Loss as PNG").click()
    assert picture.value.suggested_filename == "done-loss.png"
    assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as table:
        chart_of(page).get_by_role("link", name="Download all points of the run as CSV").click()
    lines = Path(table.value.path()).read_text().splitlines()
    assert table.value.suggested_filename == "done-curves.csv" and len(lines) == 61
    assert lines[0].startswith("step,epoch,seconds,tokens,loss") and lines[20].startswith("20,1.0,10.0,8000,")
    page.goto("/experiments/compare?name=done&name=done-slower")
    wait_until(page, "window.Chart?.getChart('loss')")
    with page.expect_download() as compared:
        page.get_by_role("button", name="Download Loss as CSV").click()
    text = Path(compared.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert text[0] == "series,step,epoch,seconds,tokens,Loss" and len(text) == 121


def test_touch_zooms_with_two_fingers(
    site: tuple[str, dict[str, str]], chromium: Browser, session: StorageState
) -> None:
    pages = open_page(chromium, site[0], has_touch=True, storage_state=session)
    page = next(pages)
    open_run(page, site, "done")
    page.locator("#loss").scroll_into_view_if_needed()
    box = page.locator("#loss").bounding_box()
    assert box
    protocol = page.context.new_cdp_session(page)
    middle, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *places: float) -> None:
        protocol.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y, "id": i} for i, x in enumerate(places)]},
        )

    touch("touchStart", middle - 20, middle + 20)
    for spread in (40, 60, 80):
        touch("touchMove", middle - spread, middle + spread)
    touch("touchEnd")
    wait_until(page, "window.Chart?.getChart('loss').scales.x.max - Chart.getChart('loss').scales.x.min < 40")
    next(pages, None)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 320])  # below 640 pixels the layout is one
def test_charts_are_readable_by_all(page: Page, site: tuple[str, dict[str, str]], scheme: Any, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for path in (site[1]["done"], "/experiments/done/", "/experiments/compare?name=done&name=done-slower"):
        page.goto(path)
        wait_until(page, "window.Chart?.getChart('loss')")
        violations = Axe().run(page, context=".charts").response["violations"]
        assert not violations, [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in violations]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
