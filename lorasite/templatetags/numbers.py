"""Numbers as people read them."""

from django import template
from django.template.defaultfilters import floatformat

register = template.Library()


@register.filter
def number(value: object, digits: int) -> str:
    """Return a number with so many digits after the point, thousands apart, and a minus sign instead of a hyphen.

    What is no number becomes an empty string.
    """
    return floatformat(value, f"{digits}g").replace("-", "−")


@register.filter
def digits_for(margin: float | None, usual: int) -> int:
    """Return how many digits of a score mean something: two where its margin is a point or more, else `usual`."""
    return 2 if margin is not None and margin >= 0.01 else usual
