"""Durations in words."""

from django.utils.translation import gettext as _


def span(seconds: float) -> str:
    """Return a duration with its two largest units, at least one second: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return _("%d s") % max(1, whole)
    if whole < 3600:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": whole // 60, "seconds": whole % 60}
    return _("%(hours)d h %(minutes)d min") % {"hours": whole // 3600, "minutes": whole % 3600 // 60}
