"""Charts as the pages draw them (static/lorasite/charts.js): labels along x, series, and a sentence that says what it shows."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple, TypeVar

from django.utils.translation import gettext as _

MOST_POINTS = 300
Point = TypeVar("Point")


class Track(NamedTuple):
    """Points that several series share: where they lie on each axis, by the axis' name.

    source: the address of all of them as CSV, where these are only some.
    """

    places: Mapping[str, Sequence[float | None]]
    source: str = ""


class Curve(NamedTuple):
    """A series of a curve chart.

    values: one for each point of the track. dots: they are not joined. noisy: smoothing helps to read it. hue: number of
    its colour and dash. column: its name in the track's source.
    """

    label: str
    track: int
    values: Sequence[float | None]
    dots: bool = False
    noisy: bool = False
    hue: int = 0
    column: str = ""


def chart(
    title: str,
    sentence: str,
    labels: Sequence[Any],
    series: Mapping[str, Sequence[float | None]],
    *,
    x_label: str,
    y_label: str,
    kind: str = "line",
    stacked: bool = False,
    key: str = "",
) -> dict[str, Any]:
    """Return a chart, which templates/parts/chart.html draws.

    `series` holds the values by the name in the legend, one for each of `labels`; they are rounded to four digits, and
    None leaves a gap. `key` tells the charts of a page that has several in one variable.
    """
    return {
        "id": key,
        "type": kind,
        "stacked": stacked,
        "title": title,
        "sentence": sentence,
        "x_label": x_label,
        "y_label": y_label,
        "labels": list(labels),
        "series": [
            {"label": label, "data": [None if value is None else round(value, 4) for value in values]}
            for label, values in series.items()
        ],
    }


def scatter_chart(
    title: str,
    sentence: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    key: str = "",
    lines: bool = False,
    diagonal: tuple[str, float, float] | None = None,
) -> dict[str, Any]:
    """Return a chart whose series hold [x, y], which templates/parts/chart.html draws like those of `chart`.

    lines: join the points of each series. diagonal: the name of a dashed line from x = y = low to x = y = high, and both.
    """
    drawn = [
        {"label": label, "points": [[round(x, 4), round(y, 4)] for x, y in points], "line": lines}
        for label, points in series.items()
    ]
    if diagonal:
        name, low, high = diagonal
        drawn.append({"label": name, "points": [[low, low], [high, high]], "line": True, "reference": True})
    return {
        "id": key,
        "type": "scatter",
        "title": title,
        "sentence": sentence,
        "x_label": x_label,
        "y_label": y_label,
        "series": drawn,
    }


def curve_chart(
    title: str,
    sentence: str,
    tracks: Sequence[Track],
    curves: Sequence[Curve],
    *,
    y_label: str,
    key: str,
    baselines: Mapping[str, float] | None = None,
    best_step: int | None = None,
    is_positive: bool = False,
    when_empty: str = "",
    csv: str = "",
    first_of_page: bool = False,
) -> dict[str, Any]:
    """Return a chart of values over the course of training, which templates/parts/chart.html draws like those of `chart`.

    It can be zoomed, smoothed and drawn along each axis that all tracks have. baselines: values by the name of the
    horizontal line that marks them. best_step: that of the best checkpoint. is_positive: offer a logarithmic scale.
    when_empty: what stands there before the first point. csv: the address of what is downloaded as CSV, if that is more than
    the chart shows. first_of_page: draw the controls of all curve charts above it.
    """
    places = [
        {axis: [round_figure(place) for place in column] for axis, column in track.places.items()} for track in tracks
    ]
    is_empty = all(value is None for curve in curves for value in curve.values)
    return {
        "id": key,
        "type": "curve",
        "title": title,
        "sentence": sentence,
        "x_label": str(axis_titles()["step"]),
        "y_label": y_label,
        # Those on which every point of every track has a place.
        "axes": [
            {"key": axis, "title": title}
            for axis, title in axis_titles().items()
            if all(None not in track.places.get(axis, [None]) for track in tracks)
        ],
        "tracks": places,
        "sources": [track.source for track in tracks],
        "series": [
            {
                "label": curve.label,
                "track": curve.track,
                "values": [round_figure(value) for value in curve.values],
                "dots": curve.dots,
                "noisy": curve.noisy,
                "hue": curve.hue,
                "column": curve.column,
            }
            for curve in curves
        ],
        "baselines": [{"label": label, "value": round_figure(value)} for label, value in (baselines or {}).items()],
        "best": None if best_step is None else {"label": _("best checkpoint"), "step": best_step},
        "log": is_positive,
        "empty": when_empty if is_empty else "",
        "csv": csv,
        "controls": first_of_page,
    }


def axis_titles() -> dict[str, str]:
    """Return what the axes are called, by their names."""
    return {"step": _("step"), "epoch": _("epoch"), "seconds": _("training time"), "tokens": _("tokens")}


def round_figure(value: float | None) -> float | None:
    """Return a value with five significant digits, which is more than a chart can show; whole numbers as they are."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.5g}")


def thin_points(points: Sequence[Point], most: int = 2 * MOST_POINTS) -> list[Point]:
    """Return evenly spaced points, at most `most`; the last one is always kept."""
    every = max(1, ceil(len(points) / most))
    first = (len(points) - 1) % every
    return list(points[first::every])
