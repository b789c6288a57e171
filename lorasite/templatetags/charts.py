from typing import Any

from django import template

register = template.Library()


@register.filter
def rows(chart: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the chart's data as table rows: the label, then the value of each series."""
    series = [one["data"] for one in chart["series"]]
    return list(zip(chart["labels"], *series, strict=True))
