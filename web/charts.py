"""Charts as the pages draw them (static/lorasite/charts.js): labels along x, series, and a sentence that says what it shows."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

MOST_POINTS = 300
Point = TypeVar("Point")


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


def thin_points(points: Sequence[Point]) -> list[Point]:
    """Return evenly spaced points, fewer than twice MOST_POINTS; the last one is always kept."""
    every = max(1, len(points) // MOST_POINTS)
    first = (len(points) - 1) % every
    return list(points[first::every])
