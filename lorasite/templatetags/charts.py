from typing import Any

from django import template

register = template.Library()


@register.filter
def rows(chart: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the chart's data as table rows: the label, then the value of each series.

    A scatter chart has a row per point: x, then y in the column of its series. Its reference line is left out.
    """
    if chart["type"] == "scatter":
        drawn = [one for one in chart["series"] if not one.get("reference")]
        return [(x, *(y if other is one else None for other in drawn)) for one in drawn for x, y in one["points"]]
    series = [one["data"] for one in chart["series"]]
    return list(zip(chart["labels"], *series, strict=True))
