"""How fluent the charts of a long run are in Chromium: milliseconds of work per move of the mouse and per step of a zoom.

    python bench/charts.py [--points 100000]

Starts a site of its own with a run of that many points, opens its page, zooms in, so that the charts hold all points, and
moves the crosshair and the zoom over its six charts. Bars: 16 ms, one frame, for the crosshair and 50 ms for the zoom, which
draws all curves again.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")

from playwright.sync_api import Page, sync_playwright

from testing.site import PASSWORD, running_web

MOVES = 200
RUN = """
from math import exp, sin
from experiments.models import Experiment
from training.models import Point, Status, Task
experiment = Experiment.objects.create(name="long", owner=root, dataset_name="d@1", base_model="b")
task = Task.objects.create(owner=root, experiment=experiment, status=Status.CANCELLED, stage="training")
Point.objects.bulk_create((
    Point(task=task, step=s, epoch=s / 1000, tokens=400 * s, runtime_s=s / 2, loss=0.2 + exp(-s / 9000) + 0.05 * sin(s),
          learning_rate=5e-4 / s, grad_norm=1 + sin(s), tokens_per_second=900 + 50 * sin(s), memory_mb=884.0)
    for s in range(1, {points} + 1)
), batch_size=5000)
print(task.pk)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=100_000)
    points = parser.parse_args().points
    with (
        tempfile.TemporaryDirectory() as folder,
        running_web(Path(folder), more=RUN.replace("{points}", str(points))) as (address, task),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(base_url=address, viewport={"width": 1440, "height": 1000})
        sign_in(page)
        start = time.perf_counter()
        page.goto(f"/runs/{task}/")
        page.wait_for_selector("[role=slider]")
        opened = time.perf_counter() - start
        start = time.perf_counter()
        page.locator("[role=slider]").first.press("+")
        page.wait_for_function("() => Chart.getChart('loss').data.datasets[0].data.length > 310")
        read = time.perf_counter() - start
        print(f"{points:,} points: page opened in {opened:.2f} s; all points there {read:.2f} s after the first zoom")
        page.locator("#loss").scroll_into_view_if_needed()
        box: Any = page.locator("#loss").bounding_box()
        places = [(box["x"] + 70 + (box["width"] - 90) * i / MOVES, box["y"] + 100) for i in range(MOVES)]
        report(page, "crosshair", [lambda x=x, y=y: page.mouse.move(x, y) for x, y in places])
        page.keyboard.down("Control")
        report(page, "zoom", [lambda i=i: page.mouse.wheel(0, -40 if i % 20 < 10 else 40) for i in range(MOVES)])
        page.keyboard.up("Control")
        browser.close()


def sign_in(page: Page) -> None:
    page.goto("/login/")
    page.locator("input[name=username]").fill("root")
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("main form button").first.click()
    page.wait_for_url("**/")


def report(page: Page, name: str, moves: list[Any]) -> None:
    """Print the time that the page's own thread works for each move, and for the slowest."""
    protocol = page.context.new_cdp_session(page)
    protocol.send("Performance.enable")

    def busy() -> float:
        metrics = {each["name"]: each["value"] for each in protocol.send("Performance.getMetrics")["metrics"]}
        return float(1000 * metrics["TaskDuration"])

    times = []
    for move in moves:
        before = busy()
        move()
        page.evaluate("() => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        times.append(busy() - before)
    times.sort()
    print(
        f"{name}: {times[len(times) // 2]:.1f} ms in the middle, {times[int(0.95 * len(times))]:.1f} ms for 95 of 100"
    )


if __name__ == "__main__":
    main()
