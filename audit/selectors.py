"""Reads of the audit log."""

from collections.abc import Mapping
from datetime import UTC, datetime, time

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _

from engine.names import normalise_name
from web.errors import InvalidError

from .models import Entry

FILTERS = ("user", "action", "result", "q", "since", "until")


def search(query: Mapping[str, str]) -> QuerySet[Entry]:
    """Return entries, newest first, filtered by user, action (or a prefix of it), result, q, since and until."""
    entries = Entry.objects.all()
    user = query.get("user")
    if user:
        entries = entries.filter(username=user)
    action = query.get("action")
    if action:
        entries = entries.filter(action__startswith=action)
    result = query.get("result")
    if result:
        entries = entries.filter(result=result)
    word = normalise_name(query.get("q", ""))
    if word:
        entries = entries.filter(Q(object_id__icontains=word) | Q(action__icontains=word) | Q(username__icontains=word))
    since = query.get("since")
    if since:
        entries = entries.filter(at__gte=parse_moment(since, "since", time.min))
    until = query.get("until")
    if until:
        entries = entries.filter(at__lte=parse_moment(until, "until", time.max))
    return entries


def parse_moment(text: str, field: str, time_of_day: time) -> datetime:
    """Parse a date, which gets `time_of_day`, or a date with a time; return it in UTC. Raise InvalidError for others."""
    moment = None
    try:
        if len(text) > 10:
            moment = parse_datetime(text)
        day = parse_date(text) if moment is None else None
        if day is not None:
            moment = datetime.combine(day, time_of_day)
    except ValueError:  # well formatted, but no such day or time
        moment = None
    if moment is None:
        raise InvalidError(_("Write a date as 2026-11-24 or a time as 2026-11-24T08:30."), field=field)
    aware = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
    try:
        return aware.astimezone(UTC)  # because PostgreSQL refuses offsets of 16 hours and more
    except OverflowError:  # before the year 1 or after the year 9999 in UTC
        return (datetime.min if aware.year == 1 else datetime.max).replace(tzinfo=UTC)
