from typing import Any

from django import template

from web.charts import thin_points

MOST_ROWS = 40  # of each series of a curve chart: what a person reads; its CSV has all

register = template.Library()


@register.filter
def rows(chart: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the chart's data as table rows: the label, then the value of each series.

    A scatter chart has a row per point: x, then y in the column of its series. Its reference line is left out.
    """
    if chart["type"] == "curve":
        return curve_rows(chart)
    if chart["type"] == "scatter":
        drawn = [one for one in chart["series"] if not one.get("reference")]
        return [(x, *(y if other is one else None for other in drawn)) for one in drawn for x, y in one["points"]]
    series = [one["data"] for one in chart["series"]]
    return list(zip(chart["labels"], *series, strict=True))


def curve_rows(chart: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return a row per step: the step, and the value of each series there; evenly spaced steps of a long series."""
    by_series = []
    for series in chart["series"]:
        steps = chart["tracks"][series["track"]]["step"]
        points = [(step, value) for step, value in zip(steps, series["values"], strict=True) if value is not None]
        by_series.append(dict(thin_points(points, MOST_ROWS)))
    steps_of_all = sorted({step for values in by_series for step in values})
    return [(step, *(values.get(step) for values in by_series)) for step in steps_of_all]


@register.filter
def figure(value: Any) -> Any:
    """Return a number with separators of thousands, a dash for None, and a text as it is."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,}"
