"""Charts without a browser: their colours, and what is drawn of many points."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings

from lorasite.templatetags.charts import rows
from web.charts import Curve, Track, curve_chart, round_figure, thin_points

STYLES = Path(settings.BASE_DIR) / "static/lorasite"
# What eyes without one kind of cone see of linear RGB (Machado, Oliveira and Fernandes 2009).
VISIONS = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_CONES = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]]  # of Oklab
TO_OKLAB = [[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


def linear_rgb(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(float(linear_rgb(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def seen(colour: str, vision: str) -> np.ndarray:
    """Return a colour as these eyes see it, in Oklab: distances there are differences that are seen."""
    return np.array(TO_OKLAB) @ np.cbrt(
        np.array(TO_CONES) @ np.clip(np.array(VISIONS[vision]) @ linear_rgb(colour), 0, 1)
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_runs_are_told_apart_by_all_eyes_and_from_the_background(theme: str) -> None:
    light, by_preference, by_switch = re.findall(r"--hue-0:.*", (STYLES / "charts.css").read_text())
    assert by_preference == by_switch
    hues = re.findall(r"#[0-9a-f]{6}", light if theme == "light" else by_switch)
    light_back, dark_back = "#fbfbf9", "#141918"
    assert len(hues) == 8 and all(contrast(hue, light_back if theme == "light" else dark_back) >= 3 for hue in hues)
    for vision in VISIONS:
        nearest = min(np.linalg.norm(seen(one, vision) - seen(two, vision)) for one, two in combinations(hues, 2))
        assert nearest > 0.085, vision


@pytest.mark.parametrize("count", [0, 1, 599, 600, 601, 100_000])
def test_thinned_points_are_few_and_end_with_the_last(count: int) -> None:
    points = list(range(count))
    thinned = thin_points(points)
    assert len(thinned) <= 600 and thinned[-1:] == points[-1:]
    assert count > 600 or thinned == points


def test_table_of_a_curve_chart_has_few_rows_with_the_values_of_all_series() -> None:
    steps = list(range(1, 501))
    tracks = [Track({"step": steps}), Track({"step": [250, 500]})]
    curves = [Curve("loss", 0, [1 / step for step in steps]), Curve("evaluation", 1, [0.5, 0.25])]
    table = rows(curve_chart("Loss", "It falls.", tracks, curves, y_label="loss", key="loss"))
    assert len(table) < 50 and table[-1] == (500, 0.002, 0.25)
    assert [line[2] for line in table if line[2] is not None] == [0.5, 0.25]


@pytest.mark.parametrize(("value", "expected"), [(5e-5, 5e-5), (0.123456, 0.12346), (1234567, 1234567), (None, None)])
def test_figures_keep_five_digits(value: float | None, expected: float | None) -> None:
    assert round_figure(value) == expected
