"""Reads of the audit log."""

from collections.abc import Mapping
from datetime import UTC, datetime, time

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _

from web.errors import Invalid

from .models import Entry

FILTERS = ("user", "action", "result", "q", "since", "until")


def search(query: Mapping[str, str]) -> QuerySet[Entry]:
    """Entries, newest first; `query` may hold user, action (or its beginning), result, q, since and until."""
    found = Entry.objects.all()
    if user := query.get("user"):
        found = found.filter(username=user)
    if action := query.get("action"):
        found = found.filter(action__startswith=action)
    if result := query.get("result"):
        found = found.filter(result=result)
    if word := query.get("q"):
        found = found.filter(Q(object_id__icontains=word) | Q(action__icontains=word) | Q(username__icontains=word))
    if since := query.get("since"):
        found = found.filter(at__gte=moment(since, "since", time.min))
    if until := query.get("until"):
        found = found.filter(at__lte=moment(until, "until", time.max))
    return found


def moment(text: str, field: str, of_day: time) -> datetime:
    """A date or a date with a time, in UTC: PostgreSQL takes no offset of 16 hours and more."""
    try:
        found = parse_datetime(text) if len(text) > 10 else None
        day = None if found else parse_date(text)
    except ValueError:
        found = day = None
    if day:
        found = datetime.combine(day, of_day)
    if not found:
        raise Invalid(_("Write a date as 2026-11-24 or a time as 2026-11-24T08:30."), field=field)
    aware = found if timezone.is_aware(found) else timezone.make_aware(found)
    try:
        return aware.astimezone(UTC)
    except OverflowError:  # beyond the first or the last year that there is
        return (datetime.min if aware.year == 1 else datetime.max).replace(tzinfo=UTC)
