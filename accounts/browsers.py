"""The names of browsers, for the list of sessions."""

from django.utils.translation import gettext as _
from ua_parser import parse


def browser_name(user_agent: str) -> str:
    """Return the browser and its system ("Chrome on Linux"), the browser alone, or the text itself if it names neither."""
    parsed = parse(user_agent)
    if not parsed.user_agent:
        return user_agent
    if not parsed.os:
        return parsed.user_agent.family
    return _("%(browser)s on %(system)s") % {"browser": parsed.user_agent.family, "system": parsed.os.family}
