from typing import Any

from django import template

register = template.Library()


@register.filter
def rows(chart: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The chart as table rows: the label, then each series' value."""
    return list(zip(chart["labels"], *(series["data"] for series in chart["series"]), strict=True))
